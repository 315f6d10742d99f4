"""How far full waveform inversion brings a map in how many seconds, family by family, from three starts.

    uv run python benchmarks/refinement.py                                   # 60 s each, from smooth and gradient
    uv run python benchmarks/refinement.py starts=network ckpt=RUN/checkpoints/best.ckpt
    uv run python benchmarks/refinement.py families=CurveFault_B seconds=600

Each map is drawn with seed 12345, simulated, and refined from the truth smoothed by a Gaussian of 4 cells (smooth),
from the even increase with depth that explains its record best (gradient), or from a network's answer (network). Prints
MAE and misfit and writes benchmarks/refinement.json: what was measured stays, so a second start goes on; again=true
measures anew. Seconds are wall time: they mean something only where nothing else runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning import load_model
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.inversion import refine
from fwi_lightning.inversion.refinement import prior_of
from fwi_lightning.inversion.start import gradient_start
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI

RESULT = Path(__file__).with_suffix(".json")
SEED = 12345
SMOOTHING = 4.0
"""Cells, of the smooth start."""


def begin(name: str, truth: torch.Tensor, gathers: torch.Tensor, checkpoint: str) -> torch.Tensor:
    """The map to start from, (1, depth, width) in m/s."""
    if name == "smooth":
        return torch.from_numpy(gaussian_filter(truth.numpy(), (0, SMOOTHING, SMOOTHING)))
    if name == "gradient":
        return gradient_start(gathers, OPENFWI)
    if name != "network" or not checkpoint:
        raise SystemExit(f"starts= takes smooth, gradient and, with ckpt=FILE, network; got {name}.")
    predicted = load_model(checkpoint).predict(gathers)
    assert isinstance(predicted, torch.Tensor)
    return predicted


def measure(family: str, name: str, seconds: float, checkpoint: str) -> dict[str, Any]:
    """MAE and misfit of the start, and of the best map after some seconds."""
    truth = torch.from_numpy(draw(family, 1, SEED)[0])
    gathers = simulate(truth[0])
    start = begin(name, truth, gathers, checkpoint)
    found = refine(gathers, start, seconds=seconds, misfit=0, prior=prior_of(family))
    return {
        "start": {"mae": error(start, truth), "misfit": round(found.start_misfit, 4)},
        "found": {
            "mae": error(found.velocity, truth),
            "misfit": round(found.misfit, 6),
            "seconds": round(found.seconds, 1),
            "simulations": len(found.history),
        },
    }


def error(velocity: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute error, m/s."""
    return round(float((velocity - truth).abs().mean()), 2)


def main() -> None:
    """Measure, print, write."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    families = words["families"].split(",") if "families" in words else list(FAMILIES)
    seconds = float(words.get("seconds", 60))
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    result["command"] = "uv run python benchmarks/refinement.py"
    result["setting"] = f"seed {SEED}, one map a family; smooth: truth smoothed by {SMOOTHING:g} cells; wall time"
    for name in words.get("starts", "smooth,gradient").split(","):
        table = result.setdefault(f"{name}, {seconds:g} s", {})
        for family in families:
            if family not in table or words.get("again") == "true":
                table[family] = measure(family, name, seconds, words.get("ckpt", ""))
                RESULT.write_text(json.dumps(result, indent=2) + "\n")
            print(name, family, table[family], flush=True)


if __name__ == "__main__":
    main()
