"""The spectral projector: traces as coefficients of band-limited atoms, filtered by wavenumber."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from fwi_lightning.errors import UserError
from fwi_lightning.models.blocks import halves
from fwi_lightning.survey import Survey

ATOMS = ("slepian", "fourier")

SLOWEST = 1500.0
"""m/s: no wave crosses the receivers slower, so |wavenumber| <= frequency / SLOWEST."""


class SpectralProjector(nn.Module):
    """Gathers to band-limited coefficients in time, then a filter over wavenumbers, then a mix of all of them.

    With d[s, t, r] the traces of channel s, g_k the K atoms of L samples, h the hop and F the discrete Fourier
    transform over receivers:

        c[s, k, m, r] = sum over t of g_k[t] d[s, m h + t - L/2, r]          frame m of the trace, projected
        b[s, k, m, .] = F^-1 ( A_k . F c[s, k, m, .] )                       A_k[wavenumber] complex
        y[j, m, r]    = gelu( norm( sum over s, k of M[j, s, k] b[s, k, m, r] ) )

    The atoms are orthonormal. "slepian": the leading eigenvectors of R[t, t'] = integral of P(f) cos 2 pi f (t - t') df
    with the wavelet's power spectrum P: of all sets of K functions they hold most of the energy of a wavelet convolved
    with white reflectivity. With P flat between two frequencies they are Slepian's sequences (Slepian, 1978,
    doi:10.1002/j.1538-7305.1978.tb02104.x), with P they are its Karhunen-Loeve expansion. "fourier": cosines and sines
    under a Hann window at frequencies spread evenly over the wavelet's band, made orthonormal. A_k begins as a fan
    filter: 1 where a wave at the atom's mean frequency could travel at `SLOWEST` or faster, falling off outside.
    Receivers are mirrored at both ends before F, so that the line need not be periodic.

    Attributes:
        channels: Channels out.
        size: (frames, receivers) out.

    Args:
        inputs: Channels in.
        size: (samples, receivers) in.
        survey: The survey: its wavelet gives the band, its receivers the wavenumbers.
        time_step: Seconds between the samples that come in.
        atoms: "slepian" or "fourier". Default "slepian".
        count: K. Default 12: 2 x 45 Hz x 0.128 s, the degrees of freedom of a window of the band.
        length: L in seconds. Default 0.128, two periods of 15 Hz.
        hop: h in seconds. Default 0.016.
        channels: Channels out. Default 32.
        learned: Whether training changes the atoms. Default True.

    Raises:
        UserError: If a setting is out of range.
    """

    def __init__(
        self,
        inputs: int,
        size: tuple[int, int],
        survey: Survey,
        time_step: float,
        atoms: str = "slepian",
        count: int = 12,
        length: float = 0.128,
        hop: float = 0.016,
        channels: int = 32,
        learned: bool = True,
    ) -> None:
        super().__init__()
        samples, step = round(length / time_step), round(hop / time_step)
        if atoms not in ATOMS:
            raise UserError(f"model.spectral.atoms must be {' or '.join(ATOMS)}, got {atoms!r}.")
        if not 1 <= count <= samples <= size[0]:
            raise UserError(
                f"model.spectral.count={count} atoms of length={length:g} s do not fit: a window of {samples} samples "
                f"holds 1 to {samples} atoms, and a trace holds {size[0]} samples."
            )
        if step < 1 or step > samples:
            raise UserError(
                f"model.spectral.hop must lie between {time_step:g} and length={length:g} s, got {hop:g}: a longer hop "
                "leaves gaps."
            )
        self.step, self.channels = step, channels
        frames = -(-size[0] // step)
        self.size = (frames, size[1])
        self.pad = halves((frames - 1) * step + samples - size[0])
        basis = make_atoms(atoms, count, samples, time_step, survey)
        kernel = torch.from_numpy(basis).float()[:, None, :, None]
        self.atoms = nn.Parameter(kernel, requires_grad=learned)
        self.transfer = nn.Parameter(torch.view_as_real(_fan(basis, time_step, size[1], survey)).clone())
        self.mix = nn.Conv2d(inputs * count, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def project(self, x: Tensor) -> Tensor:
        """Coefficients c: (batch, inputs, samples, receivers) to (batch, inputs, count, frames, receivers)."""
        batch, inputs, samples, receivers = x.shape
        traces = functional.pad(x.reshape(batch * inputs, 1, samples, receivers), (0, 0, *self.pad))
        return functional.conv2d(traces, self.atoms, stride=(self.step, 1)).unflatten(0, (batch, inputs))

    def filter(self, c: Tensor) -> Tensor:
        """Coefficients b: any (..., count, frames, receivers) to the same shape, in float32."""
        receivers = c.shape[-1]
        # Half precision knows no Fourier transform.
        with torch.autocast(c.device.type, enabled=False):
            mirrored = torch.cat([c, c.flip(-1)], dim=-1).float()
            spectrum = torch.fft.rfft(mirrored) * torch.view_as_complex(self.transfer)[:, None]
            return torch.fft.irfft(spectrum, n=2 * receivers)[..., :receivers]

    def forward(self, x: Tensor) -> Tensor:
        """(batch, inputs, samples, receivers) to (batch, channels, frames, receivers)."""
        coefficients = self.filter(self.project(x)).flatten(1, 2)
        return functional.gelu(self.norm(self.mix(coefficients)))


def make_atoms(kind: str, count: int, samples: int, time_step: float, survey: Survey) -> NDArray[np.float64]:
    """Orthonormal atoms, see `SpectralProjector`.

    Args:
        kind: "slepian" or "fourier".
        count: Their number.
        samples: Their length.
        time_step: Seconds between samples.
        survey: The survey whose wavelet gives the band.

    Returns:
        (count, samples); "slepian" ones in falling order of the energy that they hold.
    """
    frequencies = np.linspace(0, 4 * survey.frequency, 513)
    power = ricker_power(frequencies, survey.frequency)
    times = np.arange(samples) * time_step
    if kind == "slepian":
        lags = np.cos(2 * np.pi * np.multiply.outer(frequencies, times - times[0]))
        covariance = power @ lags
        index = np.abs(np.subtract.outer(np.arange(samples), np.arange(samples)))
        return np.ascontiguousarray(np.linalg.eigh(covariance[index])[1][:, ::-1][:, :count].T)
    band = frequencies[power > 0.01 * power.max()]
    chosen = np.linspace(band[0], band[-1], -(-count // 2))
    phases = 2 * np.pi * np.multiply.outer(chosen, times - times.mean())
    waves = np.stack([np.cos(phases), np.sin(phases)], axis=1).reshape(-1, samples)[:count]
    # The nearest orthonormal set (Loewdin): no atom is preferred, as the order of Gram and Schmidt would.
    left, _, right = np.linalg.svd(waves * np.hanning(samples + 2)[1:-1], full_matrices=False)
    return left @ right


def ricker_power(frequencies: NDArray[np.float64], peak: float) -> NDArray[np.float64]:
    """Power spectrum of a Ricker wavelet, 1 at its peak frequency (Ricker, 1953, doi:10.1190/1.1437843)."""
    ratio = (frequencies / peak) ** 2
    return (ratio * np.exp(1 - ratio)) ** 2


def _fan(basis: NDArray[np.float64], time_step: float, receivers: int, survey: Survey) -> Tensor:
    """Transfer function of each atom, (count, receivers + 1) complex: see `SpectralProjector`."""
    power = np.abs(np.fft.rfft(basis, n=1024)) ** 2
    frequencies = np.fft.rfftfreq(1024, time_step)
    mean = power @ frequencies / power.sum(axis=1)
    spacing = float(np.median(np.diff(sorted(survey.receiver_columns)))) * survey.spacing if receivers > 1 else 1.0
    wavenumbers = np.fft.rfftfreq(2 * receivers, spacing)
    # An atom is not one frequency: the edge is as soft as half of the peak frequency.
    beyond = np.maximum(wavenumbers * SLOWEST - mean[:, None], 0) / (survey.frequency / 2)
    return torch.from_numpy(np.exp(-0.5 * beyond**2)).to(torch.complex64)
