"""Draws docs/physics.png: a wavefield, the illumination and a gradient, all from the public functions.

uv run python docs/draw_physics.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fwi_lightning.geology import draw
from fwi_lightning.physics import illuminate, simulate
from fwi_lightning.survey import OPENFWI

TIMES = (150, 300, 450)
"""Samples of the snapshots."""


def wavefield(velocity: torch.Tensor) -> NDArray[np.float32]:
    """The field of the middle shot in every cell, (time, depth, width): a line of receivers in each row."""
    shot = replace(OPENFWI, shot_columns=(34,))
    rows = [simulate(velocity, replace(shot, receiver_row=row))[0] for row in range(OPENFWI.grid[0])]
    return torch.stack(rows, dim=1).numpy()


def main() -> None:
    """Simulate and draw."""
    velocity = torch.from_numpy(draw("CurveFault_B", 1, seed=5))[0, 0]
    start = torch.from_numpy(gaussian_filter(velocity.numpy(), 6)).requires_grad_()
    gathers, illumination = illuminate(velocity)
    (simulate(start) - gathers).square().sum().backward()
    assert start.grad is not None

    figure, axes = plt.subplots(2, 3, figsize=(11, 7.4), layout="constrained")
    field = wavefield(velocity)
    for axis, time in zip(axes[0], TIMES, strict=True):
        axis.imshow(velocity, cmap="gray", alpha=0.5)
        limit = np.quantile(np.abs(field[time]), 0.995)
        axis.imshow(field[time], cmap="seismic", vmin=-limit, vmax=limit, alpha=0.75)
        axis.set_title(f"wavefield at {time} ms")
    shown = axes[1, 0].imshow(np.log10(illumination.numpy()), cmap="magma")
    figure.colorbar(shown, ax=axes[1, 0], shrink=0.85)
    axes[1, 0].set_title("illumination of five shots, log10")
    shown = axes[1, 1].imshow(start.detach() - velocity, cmap="RdBu_r", vmin=-1000, vmax=1000)
    figure.colorbar(shown, ax=axes[1, 1], shrink=0.85, label="m/s")
    axes[1, 1].set_title("smooth start less truth")
    light = illuminate(start.detach())[1].numpy()
    gradient = start.grad.numpy() / (light + 1e-3 * light.max())
    limit = np.quantile(np.abs(gradient), 0.98)
    axes[1, 2].imshow(gradient, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes[1, 2].set_title("gradient / illumination")
    for axis in axes.flat:
        axis.set(xticks=[0, 35, 69], yticks=[0, 35, 69])
    axes[0, 0].set_ylabel("depth (cells of 10 m)")
    axes[1, 2].set_xlabel("of the misfit, at the smooth start")
    axes[1, 0].set_ylabel("depth (cells of 10 m)")
    figure.savefig(Path(__file__).with_name("physics.png"), dpi=100)


if __name__ == "__main__":
    main()
