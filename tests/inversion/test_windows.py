"""Windows over lines: which are found, how they are blended, how their seams are measured."""

import numpy as np
import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.windows import LineNetwork, find_windows, line_survey, seam
from fwi_lightning.models import Answer
from fwi_lightning.physics import simulate
from fwi_lightning.survey import Survey

WINDOW = Survey(grid=(12, 20), samples=80, shot_columns=(0, 9, 19), receiver_columns=tuple(range(20)), sponge=20)


def line(width: int, shots: tuple[int, ...]) -> Survey:
    return Survey(grid=(12, width), samples=80, shot_columns=shots, receiver_columns=tuple(range(width)), sponge=20)


def test_windows_stand_where_the_line_has_the_shots():
    shots = sorted({place + column for place in (0, 10, 17) for column in WINDOW.shot_columns})
    windows = find_windows(line(37, tuple(shots)), WINDOW)
    assert windows.places == (0, 10, 17)
    assert [[shots[k] for k in chosen] for chosen in windows.shots] == [[0, 9, 19], [10, 19, 29], [17, 26, 36]]
    assert windows.borders() == [10, 17, 20, 30]


def test_a_step_thins_them_out_and_the_last_one_stays():
    every = line(50, tuple(range(50)))
    assert find_windows(every, WINDOW, step=1).places == tuple(range(31))
    assert find_windows(every, WINDOW, step=12).places == (0, 12, 24, 30)


def test_shots_off_their_place_need_a_tolerance():
    shifted = line(20, (0, 10, 19))
    with pytest.raises(UserError, match=r"needs shots at 0, 9, 19 .* 3 at 0, 10, 19; give start=gradient"):
        find_windows(shifted, WINDOW)
    assert find_windows(shifted, WINDOW, tolerance=1).places == (0,)


def test_a_line_with_a_gap_and_a_line_too_narrow():
    with pytest.raises(UserError, match="reads 5 of the line's 45 columns nowhere"):
        find_windows(line(45, (0, 9, 19, 25, 34, 44)), WINDOW)
    with pytest.raises(UserError, match="19 columns wide, narrower than the network's window of 20"):
        find_windows(line(19, (0, 9, 18)), WINDOW)


def test_the_shots_of_a_line_are_read_off_the_record():
    survey = line(37, (0, 9, 10, 17, 19, 26, 29, 36))
    gathers = simulate(torch.full(survey.grid, 2000.0), survey)
    assert line_survey(gathers, WINDOW) == survey
    with pytest.raises(UserError, match="line_shots names 2 columns, the gathers have 8 shots"):
        line_survey(gathers, WINDOW, (0, 5))


class Reader:
    """Answers with the number of the column that each receiver carries, plus an error of each window's own."""

    def __init__(self, errors):
        self.errors = torch.tensor(errors, dtype=torch.float32)

    def __call__(self, gathers):
        columns = gathers[:, 0, 0]  # (windows, receivers)
        return Answer(columns[:, None, None, :].expand(-1, 1, 12, -1) + self.errors[:, None, None, None])


def labelled(survey: Survey) -> torch.Tensor:
    """Gathers whose values are the column of the receiver."""
    return torch.arange(float(survey.grid[1])).expand(1, *survey.gathers_shape).contiguous()


@pytest.mark.parametrize("envelope", ["gaussian", "hann", "uniform"])
@pytest.mark.parametrize("aware", [True, False])
def test_windows_that_agree_give_the_line_as_it_is(envelope, aware):
    survey = line(37, tuple(range(37)))
    network = LineNetwork(Reader([0.0, 0, 0]), find_windows(survey, WINDOW, step=10), envelope, aware, aware)
    found = network(labelled(survey)).velocity
    torch.testing.assert_close(found[0, 0], torch.arange(37.0).expand(12, 37), atol=1e-3, rtol=0)


def test_a_window_that_disagrees_weighs_less_and_seams_are_smooth():
    survey = line(37, tuple(range(37)))
    windows = find_windows(survey, WINDOW, step=10)
    flat = torch.zeros(1, *survey.gathers_shape)

    def blended(envelope, aware):
        return LineNetwork(Reader([0.0, 300, 0]), windows, envelope, aware, aware)(flat).velocity

    plain, aware = blended("gaussian", False), blended("gaussian", True)
    # Columns 17 to 20 lie in all three windows: two against one.
    assert float(aware[..., 17:20].mean()) < 0.4 * float(plain[..., 17:20].mean())
    assert seam(blended("uniform", False), windows)[0] > 20
    assert seam(plain, windows)[0] < 0.3 * seam(blended("uniform", False), windows)[0]


def test_seams_of_a_straight_slope_are_like_any_column():
    survey = line(37, tuple(range(37)))
    slope = torch.arange(37.0).expand(1, 1, 12, 37)
    assert seam(slope, find_windows(survey, WINDOW, step=10)) == pytest.approx([1.0])
    rough = torch.from_numpy(np.where(np.arange(37) >= 10, 100.0, 0.0)).float() + slope
    assert seam(rough, find_windows(survey, WINDOW, step=10))[0] == pytest.approx(26.0)  # 101, 1, 1, 1 over 1
