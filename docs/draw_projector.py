"""Draws docs/projector.png: the atoms of the spectral projector, their spectra, and its filter over wavenumbers.

uv run python docs/draw_projector.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.models.projector import SLOWEST, SpectralProjector, make_atoms, ricker_power
from fwi_lightning.models.transform import InputTransform
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI

TIME_STEP = 0.004
SAMPLES = 32
COUNT = 12


def frames_of_records() -> np.ndarray:
    """Windows of simulated gathers of the ten families, as the network reads them, (windows, samples)."""
    maps = np.concatenate([draw(family, 1, seed=4) for family in FAMILIES])[:, 0]
    read = InputTransform(OPENFWI, TIME_STEP).compress(simulate(torch.from_numpy(maps))).numpy()
    return np.lib.stride_tricks.sliding_window_view(read, SAMPLES, axis=2)[:, :, ::4].reshape(-1, SAMPLES)


def main() -> None:
    """Make the atoms and draw."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 7), layout="constrained")
    times = np.arange(SAMPLES) * TIME_STEP * 1000
    slepian = make_atoms("slepian", COUNT, SAMPLES, TIME_STEP, OPENFWI)
    for number, atom in enumerate(slepian):
        axes[0, 0].plot(times, atom - 0.6 * number, color="C0", lw=1)
    axes[0, 0].set(title="12 slepian atoms, the strongest on top", xlabel="time (ms)", yticks=[])

    frequencies = np.fft.rfftfreq(1024, TIME_STEP)
    for atom in slepian:
        axes[0, 1].plot(frequencies, np.abs(np.fft.rfft(atom, n=1024)) ** 2, color="C0", lw=0.8, alpha=0.7)
    wavelet = ricker_power(frequencies, OPENFWI.frequency)
    axes[0, 1].plot(frequencies, 8 * wavelet, color="k", ls="--", label="wavelet, scaled")
    axes[0, 1].set(title="their power spectra", xlabel="frequency (Hz)", xlim=(0, 80))
    axes[0, 1].legend()

    layer = SpectralProjector(5, (250, 70), OPENFWI, TIME_STEP)
    fan = torch.view_as_complex(layer.transfer.detach()).abs().numpy()
    wavenumbers = np.fft.rfftfreq(140, OPENFWI.spacing) * 1000
    image = axes[1, 0].imshow(fan, aspect="auto", extent=(0, wavenumbers[-1], COUNT + 0.5, 0.5), cmap="magma")
    axes[1, 0].set(
        title=f"transfer function, new: faster than {SLOWEST:.0f} m/s passes",
        xlabel="wavenumber (cycles/km)",
        ylabel="atom",
    )
    figure.colorbar(image, ax=axes[1, 0])

    frames = frames_of_records()
    counts = range(2, 21, 2)
    for kind in ("slepian", "fourier"):
        held = [
            ((frames @ make_atoms(kind, count, SAMPLES, TIME_STEP, OPENFWI).T) ** 2).sum() / (frames**2).sum()
            for count in counts
        ]
        axes[1, 1].plot(counts, held, marker="o", ms=4, label=kind)
    axes[1, 1].set(title="share of the records' energy held (log1p)", xlabel="atoms", ylim=(0, 1.02))
    axes[1, 1].legend()
    figure.savefig(Path(__file__).with_name("projector.png"), dpi=110)


if __name__ == "__main__":
    main()
