"""The spectral projector, against its formula written out and against the records of the simulator."""

import numpy as np
import pytest
import torch
from scipy.signal.windows import dpss

from fwi_lightning.errors import UserError
from fwi_lightning.geology import draw
from fwi_lightning.models.projector import SpectralProjector, make_atoms, ricker_power
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI


def projector(**settings) -> SpectralProjector:
    return SpectralProjector(5, (250, 70), OPENFWI, 0.004, **settings)


@pytest.mark.parametrize("kind", ["slepian", "fourier"])
def test_atoms_are_orthonormal_and_of_the_wavelets_band(kind):
    atoms = make_atoms(kind, 12, 32, 0.004, OPENFWI)
    np.testing.assert_allclose(atoms @ atoms.T, np.eye(12), atol=1e-10)
    power = np.abs(np.fft.rfft(atoms, n=4096)) ** 2
    beyond = np.fft.rfftfreq(4096, 0.004) > 60
    assert power[:, beyond].sum() < 0.1 * power.sum()


def test_a_flat_band_gives_slepians_sequences(monkeypatch):
    """With a power spectrum flat up to W the covariance is sin(2 pi W t) / (pi t), whose vectors SciPy knows."""
    width = 10.0  # Hz: few enough for eigenvalues that differ
    monkeypatch.setattr("fwi_lightning.models.projector.ricker_power", lambda f, _: (f <= width).astype(float))
    atoms = make_atoms("slepian", 3, 32, 0.004, OPENFWI)
    known = dpss(32, 32 * 0.004 * width, Kmax=3)
    overlap = np.linalg.svd(atoms @ known.T, compute_uv=False)
    np.testing.assert_allclose(overlap, 1, atol=0.01)  # the integral is a sum over frequencies


def test_the_power_spectrum_is_that_of_the_surveys_own_wavelet():
    frequencies = np.fft.rfftfreq(4096, OPENFWI.time_step)
    power = np.abs(np.fft.rfft(OPENFWI.wavelet(), n=4096)) ** 2
    formula = ricker_power(frequencies, OPENFWI.frequency)
    np.testing.assert_allclose(power / power.max(), formula, atol=2e-3)


def test_twelve_slepian_atoms_hold_nearly_all_of_a_record():
    """On frames of simulated gathers; the Fourier atoms, which know the band but not the wavelet, hold less."""
    record = simulate(torch.from_numpy(draw("CurveFault_B", 1, seed=4)[0, 0]))[:, ::4].numpy()
    frames = np.lib.stride_tricks.sliding_window_view(record, 32, axis=1)[:, ::16].reshape(-1, 32)

    def share(kind: str) -> float:
        atoms = make_atoms(kind, 12, 32, 0.004, OPENFWI)
        return float(((frames @ atoms.T) ** 2).sum() / (frames**2).sum())

    assert share("slepian") > 0.99
    assert share("slepian") > share("fourier")


def test_coefficients_and_filter_follow_the_formula():
    torch.manual_seed(0)
    layer = projector(count=3)
    with torch.no_grad():
        layer.transfer.copy_(torch.randn_like(layer.transfer))
    x = torch.randn(2, 5, 250, 70)
    c = layer.project(x)
    assert c.shape == (2, 5, 3, 63, 70)
    first = layer.pad[0]
    padded = np.zeros((2, 5, 250 + sum(layer.pad), 70))
    padded[:, :, first : first + 250] = x
    atoms = layer.atoms.detach().double().numpy()[:, 0, :, 0]
    for frame in (0, 1, 30, 62):
        expected = np.einsum("kt,bstr->bskr", atoms, padded[:, :, 4 * frame : 4 * frame + 32])
        np.testing.assert_allclose(c[:, :, :, frame].detach(), expected, atol=1e-4)
    # The transform over the mirrored line, as a sum over receivers.
    line = np.concatenate([c[1, 2, 1, 7].detach(), c[1, 2, 1, 7].detach().flip(0)]).astype(float)
    waves = np.exp(-2j * np.pi * np.outer(np.arange(140), np.arange(140)) / 140)
    transfer = torch.view_as_complex(layer.transfer.detach())[1].numpy()
    whole = np.concatenate([transfer, transfer[1:-1][::-1].conj()])
    spectrum = waves @ line * whole
    spectrum[[0, 70]] = spectrum[[0, 70]].real  # a real signal has real ends of its spectrum
    expected = (waves.conj() @ spectrum / 140).real[:70]
    np.testing.assert_allclose(layer.filter(c)[1, 2, 1, 7].detach(), expected, atol=1e-4)


def test_the_fan_passes_what_can_travel_and_stops_what_cannot():
    """A wave that crosses the line at 3000 m/s stays, one at 400 m/s, which no ground here carries, goes."""
    times, offsets = np.arange(250)[:, None] * 0.004, np.arange(70) * 10.0

    def left(speed: float) -> float:
        phase = (np.pi * 15 * (times - 0.5 - (offsets - 350) / speed)) ** 2
        wave = torch.from_numpy((1 - 2 * phase) * np.exp(-phase)).float().expand(1, 1, 250, 70)
        layer = SpectralProjector(1, (250, 70), OPENFWI, 0.004)
        before = layer.project(wave)
        return float(layer.filter(before).detach().square().sum() / before.detach().square().sum())

    assert left(3000) > 0.9
    assert left(400) < 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"atoms": "wavelet"}, r"model.spectral.atoms must be slepian or fourier, got 'wavelet'"),
        ({"count": 40}, r"count=40 atoms of length=0.128 s do not fit: a window of 32 samples holds 1 to 32"),
        ({"hop": 0.2}, r"hop must lie between 0.004 and length=0.128 s, got 0.2"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        projector(**settings)


def test_fixed_atoms_stay_and_learned_ones_move():
    for learned in (True, False):
        layer = projector(learned=learned)
        layer(torch.randn(2, 5, 250, 70)).square().sum().backward()
        assert (layer.atoms.grad is not None) == learned
