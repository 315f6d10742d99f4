"""How far full waveform inversion brings a map in how many seconds, family by family, from three starts.

    uv run python benchmarks/refinement.py                            # what is missing
    uv run python benchmarks/refinement.py again=true                 # all of it
    uv run python benchmarks/refinement.py families=Style_A start=network seconds=600   # one more measurement

One map of each family, drawn with seed 12345 and simulated, is refined from the truth smoothed by a Gaussian of 4 cells
(smooth), from the even increase with depth that explains its record best (gradient), and from the answer of the model
that comes with the package (network). Writes benchmarks/refinement.json after each map, so that a second start goes on,
and docs/refinement.md. Seconds are wall time: they mean something only where nothing else runs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from scipy.ndimage import gaussian_filter

from fwi_lightning import load_model
from fwi_lightning.commands.environment import environment
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.inversion import refine
from fwi_lightning.inversion.refinement import prior_of
from fwi_lightning.inversion.start import gradient_start
from fwi_lightning.physics import simulate
from fwi_lightning.starter import CHECKPOINT
from fwi_lightning.survey import OPENFWI

RESULT = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "refinement.md"
SEED = 12345
SMOOTHING = 4.0
"""Cells, of the smooth start."""
STARTS = ("smooth", "gradient", "network")
LAYERED = tuple(family for family in FAMILIES if not family.startswith("Style"))
PLAN = [(start, 60, FAMILIES) for start in STARTS] + [("smooth", 600, LAYERED)]
"""Start, seconds and families of what is measured."""

INTRODUCTION = f"""# Refinement, family by family

One map of each family (seed {SEED}), refined by `fwi_lightning.inversion.refine` from three starts: *smooth* is the
truth smoothed by a Gaussian of {SMOOTHING:g} cells, *gradient* the even increase with depth whose record is the
nearest, *network* the answer of the [starter model](starter.md). MAE in m/s of the start, and after at most so many
seconds; it stops at 0.0001 % of the record. The family's prior is given, as the model's family head would name it. Made
by `uv run python benchmarks/refinement.py`; steps and reasons are in [inference.md](inference.md#refinement).
"""


def begin(name: str, truth: torch.Tensor, gathers: torch.Tensor) -> torch.Tensor:
    """The map to start from, (1, depth, width) in m/s."""
    if name == "smooth":
        return torch.from_numpy(gaussian_filter(truth.numpy(), (0, SMOOTHING, SMOOTHING)))
    if name == "gradient":
        return gradient_start(gathers, OPENFWI)
    predicted = load_model(CHECKPOINT).predict(gathers)
    assert isinstance(predicted, torch.Tensor)
    return predicted


def measure(family: str, name: str, seconds: float) -> dict[str, Any]:
    """MAE and misfit of the start, and of the best map after some seconds; commit and processor."""
    truth = torch.from_numpy(draw(family, 1, SEED)[0])
    gathers = simulate(truth[0])
    start = begin(name, truth, gathers)
    found, facts = refine(gathers, start, seconds=seconds, prior=prior_of(family)), environment()
    return {
        "start mae": error(start, truth),
        "start misfit": round(found.start_misfit, 4),
        "mae": error(found.velocity, truth),
        "misfit": round(found.misfit, 6),
        "seconds": round(found.seconds, 1),
        "measured": f"{facts['commit'][:7]}, {facts['processor']}",
    }


def error(velocity: torch.Tensor, truth: torch.Tensor) -> float:
    """Mean absolute error, m/s."""
    return round(float((velocity - truth).abs().mean()), 2)


def page(result: dict[str, dict[str, Any]]) -> str:
    """docs/refinement.md."""
    columns = sorted(result, key=lambda key: (STARTS.index(key.split(",")[0]), float(key.split()[1])))
    lines = [INTRODUCTION, "| | " + " | ".join(columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for family in FAMILIES:
        there = (result[column].get(family) for column in columns)
        cells = [f"{one['start mae']:.1f} to {one['mae']:.1f} ({one['seconds']:.0f} s)" if one else "" for one in there]
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    made = [" and ".join(sorted({one["measured"] for one in result[column].values()})) for column in columns]
    lines.append("| measured at | " + " | ".join(made) + " |")
    for name, chosen in (("all", FAMILIES), ("with layers", LAYERED)):
        shares = [_share(result[column], chosen) for column in columns]
        lines.append(f"| {name}: share of the start's error | " + " | ".join(shares) + " |")
    return "\n".join(lines) + "\n"


def _share(column: dict[str, dict[str, float]], families: tuple[str, ...]) -> str:
    """What is left of the error over some families; nothing where one of them is missing."""
    there = [column[family] for family in families if family in column]
    if len(there) < len(families):
        return ""
    return f"{sum(one['mae'] for one in there) / sum(one['start mae'] for one in there):.2f}"


def main() -> None:
    """Measure, print, write."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    plan = PLAN
    if "start" in words:
        if words["start"] not in STARTS:
            raise SystemExit(f"start= takes {', '.join(STARTS)}, got {words['start']}.")
        plan = [(words["start"], float(words.get("seconds", 60)), FAMILIES)]
    wanted = words.get("families", ",".join(FAMILIES)).split(",")
    if unknown := set(wanted) - set(FAMILIES):
        raise SystemExit(f"families= takes {', '.join(FAMILIES)}, got {', '.join(sorted(unknown))}.")
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    for name, seconds, families in plan:
        column = result.setdefault(f"{name}, {seconds:g} s", {})
        for family in families:
            if family in wanted and (family not in column or words.get("again") == "true"):
                column[family] = measure(family, name, seconds)
                RESULT.write_text(json.dumps(result, indent=2) + "\n")
                PAGE.write_text(page(result))
                print(f"{name}, {seconds:g} s, {family}: {column[family]}", flush=True)


if __name__ == "__main__":
    main()
