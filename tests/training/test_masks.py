"""What is hidden, against NumPy's Fourier transform and by counting."""

import numpy as np
import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.models import ResidualUNet
from fwi_lightning.survey import Survey
from fwi_lightning.training.masks import TASKS, BandMask, TraceMask, draw_masks, make_mask

SURVEY = Survey.surface(width=40, depth=20, shots=3, samples=404)
MODEL = ResidualUNet(SURVEY, width=4)  # reads 101 samples of 4 ms
RECORDS = torch.randn(6, 3, 101, 40, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("task", TASKS)
def test_the_energies_of_the_hidden_and_of_the_kept_part_add_up(task):
    mask = make_mask(task, 0.5, MODEL)
    drawn = draw_masks(mask, range(6))
    hidden = mask.hidden(RECORDS, drawn)
    kept = RECORDS - hidden
    energies = [x.double().square().sum(dim=(1, 2, 3)).numpy() for x in (hidden, kept, RECORDS)]
    np.testing.assert_allclose(energies[0] + energies[1], energies[2], rtol=1e-5)
    assert (energies[0] > 0).all()
    assert (energies[1] > 0).all()
    torch.testing.assert_close(mask.hidden(hidden, drawn), hidden)  # a projection
    assert mask.hidden(kept, drawn).abs().max() < 1e-5


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_the_share_of_traces_is_hidden_in_blocks_of_neighbours(share):
    mask = TraceMask(share, shots=5, receivers=70)
    traces = np.stack([mask.draw(np.random.default_rng(seed)) for seed in range(20)])
    expected = np.clip(round(share * 50), 1, 49) * 7
    assert (traces.sum(axis=(1, 2)) == expected).all()
    begins = traces & ~np.roll(traces, 1, axis=2)
    lengths = traces.sum(axis=2)[begins.any(axis=2)] / begins.sum(axis=2)[begins.any(axis=2)]
    assert lengths.min() >= 7
    often = traces.mean(axis=(0, 1))
    assert (often > 0).all() or share == 0.01, "some receivers are never hidden"


def test_hidden_traces_are_whole_and_the_others_untouched():
    mask = TraceMask(0.5, shots=3, receivers=40)
    drawn = draw_masks(mask, [0, 1, 2, 3, 4, 5])
    hidden = mask.hidden(RECORDS, drawn)
    for sample in range(6):
        for shot in range(3):
            for receiver in range(40):
                trace = RECORDS[sample, shot, :, receiver]
                expected = trace if drawn[sample, shot, receiver] else torch.zeros_like(trace)
                assert torch.equal(hidden[sample, shot, :, receiver], expected)


@pytest.mark.parametrize("samples", [100, 101])
def test_a_hidden_band_is_exactly_that_band(samples):
    mask = BandMask(0.4, samples, 0.004, 15.0)
    records = RECORDS[:, :, :samples]
    drawn = draw_masks(mask, range(6))
    kept = np.fft.rfft((records - mask.hidden(records, drawn)).double().numpy(), axis=2)
    whole = np.fft.rfft(records.double().numpy(), axis=2)
    frequencies = np.fft.rfftfreq(samples, 0.004)
    band = (frequencies <= 45).sum()
    firsts = set()
    for sample in range(6):
        numbers = np.flatnonzero(drawn[sample].numpy())
        firsts.add(numbers[0])
        assert len(numbers) == round(0.4 * band)
        assert np.ptp(numbers) == len(numbers) - 1
        assert frequencies[numbers].max() <= 45
        assert np.abs(kept[sample][:, numbers]).max() < 1e-4
        others = np.delete(np.arange(len(frequencies)), numbers)
        np.testing.assert_allclose(kept[sample][:, others], whole[sample][:, others], atol=1e-4)
    assert len(firsts) > 1


@pytest.mark.parametrize("task", TASKS)
def test_a_mask_depends_on_the_sample_and_the_epoch_alone(task):
    mask = make_mask(task, 0.5, MODEL)
    torch.manual_seed(0)
    together = draw_masks(mask, [3, 7, 9], 2)
    torch.manual_seed(1)
    assert torch.equal(together[1], draw_masks(mask, [7], 2)[0])
    epochs = torch.cat([draw_masks(mask, [7], epoch) for epoch in range(8)] + [draw_masks(mask, [7])])
    assert len(epochs.unique(dim=0)) > 4


def test_half_precision_does_not_reach_the_fourier_transform():
    mask = make_mask("masked_spectra", 0.5, MODEL)
    drawn = draw_masks(mask, range(6))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(mask.hidden(RECORDS, drawn), mask.hidden(RECORDS, drawn).float())
        hidden = mask.hidden(RECORDS.bfloat16(), drawn)
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, mask.hidden(RECORDS.bfloat16().float(), drawn))


@pytest.mark.parametrize(
    ("task", "share", "message"),
    [
        ("masked_shots", 0.5, "task must be masked_traces or masked_spectra where there are no labels, got 'masked_sh"),
        ("masked_traces", 0.0, r"share must lie between 0 \(nothing is hidden\) and 1 \(all is\), got 0.0"),
        ("masked_spectra", 1, "got 1"),
    ],
)
def test_a_task_or_share_that_makes_no_sense_is_refused(task, share, message):
    with pytest.raises(UserError, match=message):
        make_mask(task, share, MODEL)
