"""How far full waveform inversion brings a map in how many seconds, family by family.

    uv run python benchmarks/refinement.py                                  # ten families, 60 s each
    uv run python benchmarks/refinement.py families=CurveFault_B seconds=600

Each map is drawn with seed 12345, simulated, and refined from the truth smoothed by a Gaussian of 4 cells. Prints MAE
and misfit and writes benchmarks/refinement.json (what was measured for other families stays). Seconds are wall time:
they mean something only where nothing else runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.inversion import refine
from fwi_lightning.physics import simulate

RESULT = Path(__file__).with_suffix(".json")
SEED = 12345
SMOOTHING = 4.0
"""Cells, of the start."""


def measure(family: str, seconds: float) -> dict[str, Any]:
    """MAE and misfit of the start, and of the best map after some seconds."""
    truth = torch.from_numpy(draw(family, 1, SEED)[0])
    gathers = simulate(truth[0])
    start = torch.from_numpy(gaussian_filter(truth.numpy(), (0, SMOOTHING, SMOOTHING)))
    # One run after the other on what the last has found would begin with the strong prior again.
    found = refine(gathers, start, seconds=seconds, misfit=0)
    return {
        "start": {"mae": round(error(start, truth), 1), "misfit": round(found.start_misfit, 4)},
        f"{found.seconds:.0f} s": {
            "mae": round(error(found.velocity, truth), 1),
            "misfit": round(found.misfit, 5),
            "gradients": len(found.history),
        },
    }


def error(velocity: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute error, m/s."""
    return float((velocity - truth).abs().mean())


def main() -> None:
    """Measure, print, write."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    families = words["families"].split(",") if "families" in words else list(FAMILIES)
    seconds = float(words.get("seconds", 60))
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {"families": {}}
    result["command"] = "uv run python benchmarks/refinement.py"
    result["setting"] = f"seed {SEED}, start: truth smoothed by {SMOOTHING:g} cells; wall time"
    for family in families:
        row = measure(family, seconds)
        result["families"].setdefault(family, {}).update(row)
        print(family, row, flush=True)
        RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
