"""The refiner's network: begins by changing nothing, and sees all that it is given."""

import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.models import Refiner
from fwi_lightning.survey import Survey

SURVEY = Survey.surface(width=30, depth=24, shots=2, samples=200)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(3, *shape, generator=generator)

    return {
        "gathers": noise(2, 200, 30),
        "start": 3000 + 300 * noise(1, 24, 30),
        "residual": 0.1 * noise(2, 50, 30),
        "gradient": 1e-6 * noise(1, 24, 30),
    }


def make(**settings):
    torch.manual_seed(0)
    return Refiner(SURVEY, width=4, **settings).eval()


@pytest.mark.parametrize("coarseness", [1, 2])
def test_a_new_refiner_leaves_a_map_as_it_is(inputs, coarseness):
    refiner = make(coarseness=coarseness)
    with torch.no_grad():
        torch.testing.assert_close(refiner.correct(**inputs).velocity, inputs["start"])


@pytest.mark.parametrize("name", ["gathers", "start", "residual", "gradient"])
def test_the_correction_depends_on_everything_that_it_is_given(inputs, name):
    refiner = make()
    refiner.fit(inputs["residual"], inputs["gradient"])
    torch.nn.init.normal_(refiner.net.head.body[-1].weight)
    other = inputs | {name: inputs[name].flip(0)}
    with torch.no_grad():
        corrections = [refiner.correct(**values).velocity - values["start"] for values in (inputs, other)]
    assert corrections[0].shape == inputs["start"].shape
    assert (corrections[0] - corrections[1])[0].abs().max() > 1
    torch.testing.assert_close(corrections[0][1], corrections[1][1], rtol=1e-3, atol=1e-1)  # the one in the middle


def test_gradients_are_read_relative_to_those_of_their_depth(inputs):
    refiner = make()
    torch.nn.init.normal_(refiner.net.head.body[-1].weight)
    steep = inputs["gradient"] * torch.logspace(0, -6, 24)[:, None]
    found = []
    for gradient in (inputs["gradient"], steep):
        refiner.fit(inputs["residual"], gradient)
        with torch.no_grad():
            found.append(refiner.correct(**(inputs | {"gradient": gradient})).velocity)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-2)


def test_it_makes_no_map_of_gathers_alone_and_refuses_bad_settings(inputs):
    with pytest.raises(UserError, match="a refiner corrects the maps of another model"):
        make().predict(inputs["gathers"])
    with pytest.raises(UserError, match=r"model.coarseness must be 1 or 2, got 3"):
        make(coarseness=3)
    with pytest.raises(UserError, match=r"model.levels must be at least 1, got 0"):
        make(levels=0)
