"""What each step after the network does to the error, and what it costs.

    uv run python benchmarks/inference.py ckpt=RUN/checkpoints/last.ckpt              # 5 maps of each family
    uv run python benchmarks/inference.py ckpt=... samples=20 families=FlatVel_A,Style_B

Maps are drawn with a seed that no training uses and simulated by the survey of the checkpoint. Members of test-time
augmentation are judged by the mean of the network's answer and theirs. Prints a table and writes
benchmarks/inference.json. Seconds are wall time of this machine: they mean something only where nothing else runs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fwi_lightning import load_model
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.inversion import State
from fwi_lightning.inversion.augmentation import Augmentation
from fwi_lightning.inversion.steps import FixedPoint, Step
from fwi_lightning.models import VelocityModel
from fwi_lightning.physics import simulate

RESULT = Path(__file__).with_suffix(".json")
SEED = 424242
SINGLE: dict[str, dict[str, Any]] = {
    "flip, recorded shot": {"missing_shot": "recorded"},
    "flip, simulated shot": {"missing_shot": "simulate"},
    "flip, difference": {"missing_shot": "difference"},
    "gains 0.9, 1.1": {"flip": False, "gains": [0.9, 1.1]},
    "shifts -2, 2": {"flip": False, "shifts": [-2, 2]},
    "shifts -4, 4": {"flip": False, "shifts": [-4, 4]},
    "scalings 0.97, 1.03": {"flip": False, "scalings": [0.97, 1.03]},
    "rotation 0": {"flip": False, "rotations": [0]},
    "rotations -4, 4": {"flip": False, "rotations": [-4, 4]},
    "rotations -4, 0, 4": {"flip": False, "rotations": [-4, 0, 4]},
}
FAST: dict[str, Any] = {"flip": True}
THOROUGH: dict[str, Any] = FAST | {"scalings": [0.94, 0.97, 1.03, 1.06], "both_ways": True}


def begin(model: VelocityModel, gathers: Tensor) -> State:
    """The network's answer."""
    answer = model.predict_answer(gathers)
    return State(gathers, answer.velocity, model.survey, model.predict_answer, answer, model.families)


def through(*steps: Step) -> Callable[[State], State]:
    """Steps on end."""

    def run(state: State) -> State:
        for step in steps:
            for part in range(step.parts):
                step.run(state, part)
        return state

    return run


def main() -> None:
    """Measure, print, write."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    families = words["families"].split(",") if "families" in words else list(FAMILIES)
    samples = int(words.get("samples", 5))
    model = load_model(words["ckpt"])
    truth = torch.cat([torch.from_numpy(draw(family, samples, SEED)) for family in families])
    gathers = simulate(truth[:, 0], model.survey)
    rows: dict[str, Any] = {}

    def measure(name: str, run: Callable[[State], State], lower: torch.dtype | None = None) -> None:
        asked = load_model(words["ckpt"]).lower(lower) if lower else model
        begun = time.monotonic()
        state = run(begin(asked, gathers))
        seconds = (time.monotonic() - begun) / len(gathers)
        error = (state.velocity - truth).abs().mean(dim=(1, 2, 3)).double()
        by_family = dict(zip(families, error.unflatten(0, (-1, samples)).mean(dim=1).tolist(), strict=True))
        rows[name] = {"mae": round(float(error.mean()), 2), "seconds": round(seconds, 3)}
        rows[name] |= {"misfit": None if state.known_misfit is None else round(float(state.known_misfit.mean()), 4)}
        rows[name]["families"] = {family: round(value, 1) for family, value in by_family.items()}
        change = 100 * (rows[name]["mae"] / rows["network"]["mae"] - 1)
        print(f"{name:28} MAE {rows[name]['mae']:7.2f} ({change:+5.1f} %)  {seconds:6.3f} s", flush=True)
        result = {
            "command": f"uv run python benchmarks/inference.py ckpt=... samples={samples}",
            "setting": f"seed {SEED}, {samples} maps of each of {len(families)} families",
            "model": f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters",
            "rows": rows,
        }
        RESULT.write_text(json.dumps(result, indent=2) + "\n")

    measure("network", through())
    measure("bfloat16", through(), torch.bfloat16)
    measure("float16", through(), torch.float16)
    for name, settings in SINGLE.items():
        measure(name, through(Augmentation(**settings)))
    measure("fixed point", through(FixedPoint()))
    measure("fast, fixed point", through(Augmentation(**FAST), FixedPoint()))
    measure("thorough, mean", through(Augmentation(**THOROUGH)))
    measure("thorough (median)", through(Augmentation(**THOROUGH, average="median")))


if __name__ == "__main__":
    main()
