"""What the fixed point and a learned refiner make of a network's answers, on samples that the network never saw.

    uv run python benchmarks/corrections.py run=runs/RUN                               # the fixed point
    uv run python benchmarks/corrections.py run=runs/RUN refiner=runs/REFINER/checkpoints/best.ckpt per_family=20

The samples are the first `per_family` (default 10) of each family in the run's held-out fold; its data must lie where
its config.yaml says. Prints, per family and over all, the MAE in m/s of the network and after each correction, and
writes them to benchmarks/corrections.json. For the fixed point also why: the correlation, over all cells, of the
network's error on the record with its error on the record of its own answer, the best factor for one step if the truth
were known, and the MAE that it would give. Seconds are wall time of one sample.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from fwi_lightning.config import build, plain
from fwi_lightning.inversion import correct
from fwi_lightning.inversion.refiner import apply_refiner
from fwi_lightning.models import Refiner, VelocityModel
from fwi_lightning.physics import simulate
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.training.checkpoint import load_model, load_refiner

RESULT = Path(__file__).with_suffix(".json")
FACTORS = np.linspace(-0.2, 1, 25)
"""Of one step of the fixed point, tried with the truth at hand."""


def held_out(run: Path, per_family: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Gathers and maps of each family in the fold that a run held out."""
    config = OmegaConf.load(run / "config.yaml")
    survey = plain(config.physics)
    data = build(plain(config.data), survey=survey, fold=config.fold, folds=config.folds, seed=config.seed)
    data.setup()
    dataset = data.val_dataset
    found = {}
    for number, family in enumerate(dataset.families):
        places = np.flatnonzero(dataset.family_numbers == number)[:per_family].tolist()
        samples = [dataset[place] for place in places]
        gathers, velocity = (torch.stack([sample[name] for sample in samples]) for name in ("gathers", "velocity"))
        found[family] = gathers, velocity
    return found


def measure(gathers: Tensor, truth: Tensor, model: VelocityModel, refiner: Refiner | None) -> dict[str, Any]:
    """Sums over the samples of one family; see the head of this file."""

    def predict(records: Tensor) -> Tensor:
        return model.predict_answer(records).velocity

    def forward(maps: Tensor) -> Tensor:
        return simulate(maps, model.survey)

    answer = predict(gathers)
    start = answer.clamp(1500, 4500)
    record = forward(start[:, 0])
    correction, error = predict(record) - answer, start - truth
    row: dict[str, Any] = {
        "network": mean_error(start, truth),
        "misfit": float(relative_rms(gathers, record).median()),
        "correlation": float(np.corrcoef(error.ravel().numpy(), correction.ravel().numpy())[0, 1]),
        "one step": {f"{a:.2f}": mean_error(start - a * correction, truth) for a in FACTORS},
    }
    corrections: dict[str, Callable[[], tuple[Tensor, Tensor]]] = {
        "fixed point": lambda: correct(gathers, predict, forward, answer=answer)
    }
    if refiner is not None:
        corrections["refiner"] = partial(refine, gathers, start, refiner, must_fit=False)
        corrections["refiner, only if the misfit falls"] = partial(refine, gathers, start, refiner, must_fit=True)
    for name, apply in corrections.items():
        begun = time.monotonic()
        velocity, misfit = apply()
        seconds = (time.monotonic() - begun) / len(gathers)
        row |= {name: mean_error(velocity, truth), f"misfit, {name}": float(misfit.median())}
        row[f"seconds, {name}"] = seconds
    return row


def refine(gathers: Tensor, start: Tensor, refiner: Refiner, must_fit: bool) -> tuple[Tensor, Tensor]:
    """One pass of a refiner: maps and misfits."""
    found = apply_refiner(gathers, start, refiner, must_fit=must_fit)
    return found.velocity, found.misfit


def mean_error(velocity: Tensor, truth: Tensor) -> float:
    """MAE over the samples, m/s."""
    return float((velocity - truth).abs().mean())


def overall(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the families, and the best factor of one step for all of them."""
    names = [name for name in next(iter(rows.values())) if name != "one step"]
    found = {name: float(np.mean([row[name] for row in rows.values()])) for name in names}
    steps = {
        a: float(np.mean([row["one step"][a] for row in rows.values()])) for a in next(iter(rows.values()))["one step"]
    }
    best = min(steps, key=lambda a: steps[a])
    return found | {"best factor": float(best), "best one step": steps[best]}


def main() -> None:
    """Measure, print, write."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    run, per_family = Path(words["run"]), int(words.get("per_family", 10))
    checkpoint = next(path for name in ("best", "last") if (path := run / "checkpoints" / f"{name}.ckpt").is_file())
    model = load_model(checkpoint)
    refiner = load_refiner(words["refiner"]) if "refiner" in words else None
    rows: dict[str, dict[str, Any]] = {}
    for family, (gathers, truth) in held_out(run, per_family).items():
        rows[family] = measure(gathers, truth, model, refiner)
        print(family, {name: round(v, 3) for name, v in rows[family].items() if name != "one step"}, flush=True)
    rows["all"] = overall(rows)
    print("all", {name: round(value, 3) for name, value in rows["all"].items()}, flush=True)
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    kept = {
        family: {name: round(v, 4) for name, v in row.items() if name != "one step"} for family, row in rows.items()
    }
    result[run.name] = {"command": "uv run python benchmarks/corrections.py", "samples a family": per_family} | kept
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
