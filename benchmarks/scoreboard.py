"""Everything that makes maps, on the same 500 samples that nothing was trained on.

    uv run python benchmarks/scoreboard.py                    # what is missing, from the checkpoints that there are
    uv run python benchmarks/scoreboard.py rows=starter       # rows whose name begins so, again
    uv run python benchmarks/scoreboard.py only=table         # docs/scoreboard.md alone, from the rows that there are

The test set is drawn with the reserved seed `fwi_lightning.starter.TEST_SEED`, 50 maps of each family, and simulated
into cache/scoreboard (0.7 GB) on first use. Each row that is done is kept in benchmarks/scoreboard.json. Rows whose
checkpoints are missing are left out, by name; `benchmarks/accuracy.py` trains those of equal cost into runs/accuracy/,
docs/ensemble.md has the command that makes an ensemble of six of them, in runs/ensemble/.
Writes docs/scoreboard.md, docs/scoreboard_ladder.png and, where a refinement was measured, docs/starter.png.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning import load_model
from fwi_lightning.data import find_parts, write_survey
from fwi_lightning.figures.maps import contact_sheet
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.starter import CHECKPOINT, TEST_SEED
from fwi_lightning.training.checkpoint import read_checkpoint
from fwi_lightning.training.scores import VelocityScores

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "cache" / "scoreboard"
ROWS = ROOT / "runs" / "scoreboard"
ACCURACY = ROOT / "runs" / "accuracy"
RESULT = Path(__file__).with_suffix(".json")
PAGE, LADDER = ROOT / "docs" / "scoreboard.md", ROOT / "docs" / "scoreboard_ladder.png"
PICTURE = ROOT / "docs" / "starter.png"
PER_FAMILY = 50
BUDGET = 600.0
"""Seconds of one core that benchmarks/accuracy.py trains each model for."""
MEAN_MAP_DRAWS = 100
"""Maps of each family, of another seed, whose mean is the answer without any gathers."""

LAYERED = tuple(family for family in FAMILIES if not family.startswith("Style"))

FIRST = "mae of the first of each family"
SCORES = {
    "mae": ("MAE (m/s)", ".0f"),
    "rmse": ("RMSE (m/s)", ".0f"),
    "ssim": ("SSIM", ".3f"),
    "boundary_iou": ("boundary IoU", ".3f"),
}
TABLE = [
    "| | MAE (m/s) | RMSE (m/s) | SSIM | boundary IoU | training (s of a core) | prediction (s of a core a sample) |",
    "|---|---:|---:|---:|---:|---:|---:|",
]

Maps = NDArray[np.float32]
"""Predictions by sample, (samples, 1, depth, width); rows of NaN where a sample is not part of the subset."""

PUBLISHED = {
    "InversionNet, one model a family (LANL)": [20, 53, 103, 225, 26, 158, 39, 247, 94, 103],
    "CAFormer U-Net of a public notebook (own folds)": [1.3, 7.2, 9.2, 38.6, 2.6, 24.3, 4.0, 71.1, 34.3, 48.9],
}
"""MAE in m/s of each family on OpenFWI's own samples (Deng et al., 2022, arXiv:2111.02926; Kaggle, 2025)."""
PUBLISHED_MEANS = {
    "UNet, 33 M parameters (Global-scale FWI)": 68,
    "10th place of Kaggle's competition": 12.6,
    "1st place, full waveform inversion per sample": 6.9,
}


@dataclass(frozen=True)
class Row:
    """One way of making maps.

    Attributes:
        name: What the table calls it.
        inputs: Files that it needs.
        predict: Gives the maps.
        training: Seconds of one core that its training took; None where there was none or it is not known.
        samples: Samples of each family that it answers.
        families: Families that it answers.
    """

    name: str
    inputs: list[Path]
    predict: Callable[[Row], Maps]
    training: float | None = None
    samples: int = PER_FAMILY
    families: tuple[str, ...] = FAMILIES

    @property
    def folder(self) -> Path:
        """Where its maps are made."""
        return ROWS / self.name.replace(", ", "_").replace(" + ", "_").replace(" ", "_")


def test_set() -> tuple[list[NDArray[np.float32]], Maps]:
    """Gathers, memory-mapped a family at a time, and true maps of all, in the order of `FAMILIES`."""
    write_survey(TESTS, samples_per_family=PER_FAMILY, samples_per_file=PER_FAMILY, seed=TEST_SEED)
    parts = {part.family: part for part in find_parts(TESTS)}
    ordered = [parts[family] for family in FAMILIES]
    truth = np.concatenate([np.load(part.velocity) for part in ordered if part.velocity is not None])
    return [np.load(part.gathers, mmap_mode="r") for part in ordered], truth


def mean_map(row: Row) -> Maps:
    """The same answer to everything: the mean of maps of other seeds."""
    mean = np.mean([draw(family, MEAN_MAP_DRAWS, seed=0).mean(axis=0) for family in FAMILIES], axis=0)
    return np.broadcast_to(mean.astype(np.float32), (len(FAMILIES) * PER_FAMILY, *mean.shape))


def network(row: Row) -> Maps:
    """The answers of a network alone."""
    model = load_model(row.inputs[0])
    gathers, _ = test_set()
    return np.concatenate([model.predict(np.array(family), batch_size=10) for family in gathers])


def ensemble(row: Row) -> Maps:
    """The mean of the answers of several networks."""
    gathers, _ = test_set()
    total = np.zeros((len(FAMILIES) * PER_FAMILY, 1, 70, 70), np.float64)
    for path in row.inputs:
        model = load_model(path)
        total += np.concatenate([model.predict(np.array(family), batch_size=10) for family in gathers])
    return (total / len(row.inputs)).astype(np.float32)


def command(*words: str) -> Callable[[Row], Maps]:
    """The answers of predict.py with some words: what a user gets, and takes."""

    def predict(row: Row) -> Maps:
        maps = np.full((len(FAMILIES) * PER_FAMILY, 1, 70, 70), np.nan, np.float32)
        gathers, _ = test_set()
        row.folder.mkdir(parents=True, exist_ok=True)
        for family in row.families:
            number = FAMILIES.index(family)
            source, output = row.folder / f"{family}.npy", row.folder / family
            np.save(source, gathers[number][: row.samples])
            line = [sys.executable, str(ROOT / "predict.py"), f"ckpt={row.inputs[0]}", f"input={source}"]
            subprocess.run([*line, f"output={output}", "misfit=false", "pictures=0", *words], check=True, cwd=ROOT)
            first = number * PER_FAMILY
            maps[first : first + row.samples] = np.load(output / "velocity" / f"{family}.npy")
            source.unlink()
        return maps

    return predict


def rows() -> list[Row]:
    """All rows of the table, whether their inputs are there or not."""
    table = [Row("mean map", [], mean_map)]
    runs = ["inversionnet", "shallow_unet_small", "shallow_unet", "shallow_unet_large", "specproj_unet", "unet"]
    members = [ACCURACY / f"{name}_seed0/checkpoints/last.ckpt" for name in [*runs, "resunet5", "invertible_unet"]]
    for path in members:
        name = path.parents[1].name.removesuffix("_seed0")
        table.append(Row(f"{name}, ten minutes of one core", [path], network, BUDGET))
    table.append(Row("ensemble of these eight, mean", members, ensemble, len(members) * BUDGET))
    name = "weighed ensemble of three models and two seeds"
    table.append(Row(name, [ROOT / "runs/ensemble/ensemble.ckpt"], network, 6 * BUDGET))
    spent = _starter_seconds()
    table.append(Row("starter", [CHECKPOINT], network, spent))
    for name, inference, samples in (
        ("starter + refinement, 60 s a sample", "refine", 1),
        ("starter + fixed point", "fixed_point", PER_FAMILY),
        ("starter + mirrored record + fixed point", "fast", PER_FAMILY),
    ):
        inputs = [CHECKPOINT, ROOT / "conf" / "inference" / f"{inference}.yaml"]
        table.append(Row(name, inputs, command(f"inference={inference}"), spent, samples))
    refine = [CHECKPOINT, ROOT / "conf" / "inference" / "refine.yaml"]
    longer = command("inference=refine", "inference.refine.seconds=600")
    table.append(Row("starter + refinement, 600 s a sample, layers", refine, longer, spent, 1, LAYERED))
    return table


def _starter_seconds() -> float | None:
    """Seconds of one core of the starter's training: its steps times what a step takes."""
    if not CHECKPOINT.is_file():
        return None
    steps = int(read_checkpoint(CHECKPOINT).get("global_step", 0))
    return steps * STARTER_STEP


STARTER_STEP = 0.36
"""Seconds of one core that a step of the starter takes: 16 samples in bfloat16, forward, backward and AdamW."""


def run(row: Row) -> dict[str, Any]:
    """Make the maps of a row and score them."""
    _, truth = test_set()
    begun, started = _processor(), time.monotonic()
    maps = row.predict(row)
    seconds, wall = _processor() - begun, time.monotonic() - started
    there = np.flatnonzero(np.isfinite(maps).all(axis=(1, 2, 3)))
    scores = VelocityScores(FAMILIES)
    for chosen in np.array_split(there, max(1, len(there) // 50)):
        family = torch.from_numpy(chosen // PER_FAMILY)
        scores.update(torch.from_numpy(maps[chosen].copy()), torch.from_numpy(truth[chosen]), family)
    result = {
        "name": row.name,
        "samples": len(there),
        "all": {name: round(value.item(), 4) for name, value in scores.compute().items()},
        "families": {
            name: {key: round(value, 4) for key, value in each.items()} for name, each in scores.per_family().items()
        },
        "processor seconds a sample": round(seconds / len(there), 4),
        "seconds a sample": round(wall / len(there), 4),
        "training": row.training,
        FIRST: [
            round(float(np.abs(maps[number] - truth[number]).mean()), 2) if number in there else None
            for number in range(0, len(truth), PER_FAMILY)
        ],
    }
    print(
        f"{row.name}: MAE {result['all']['mae']:.1f} m/s, {result['processor seconds a sample']:.3f} s a sample",
        flush=True,
    )
    return result


def _processor() -> float:
    """Processor time of this process and of those that it waited for, in seconds."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def page(results: list[dict[str, Any]], missing: list[str]) -> str:
    """docs/scoreboard.md."""
    whole = [result for result in results if result["samples"] == len(FAMILIES) * PER_FAMILY]
    part = [result for result in results if result not in whole]
    lines = [
        "# Scoreboard",
        "",
        f"{len(FAMILIES) * PER_FAMILY} simulated samples, {PER_FAMILY} of each family, drawn with the reserved seed "
        f"{TEST_SEED}: no row has seen one of them. Made by `uv run python benchmarks/scoreboard.py`.",
        "",
        *TABLE,
        *map(_line, whole),
        "",
    ]
    if part:
        start = next((result for result in whole if result["name"] == "starter"), None)
        alone = ""
        if start:
            layered = [value for family, value in zip(FAMILIES, start[FIRST], strict=True) if family in LAYERED]
            alone = (
                f" The starter alone has {np.mean(start[FIRST]):.1f} m/s on these, {np.mean(layered):.1f} on the eight "
                "with layers."
            )
        lines += [f"On the first sample of each family only, for its cost.{alone}", "", *TABLE, *map(_line, part), ""]
    if missing:
        lines += [f"Not measured yet, for lack of a checkpoint or of time: {', '.join(missing)}.", ""]
    lines += [
        "Seconds are processor time, measured while other work ran; of what predict.py does, with its start-up.",
        "",
        "![MAE against the cost of training and of prediction](scoreboard_ladder.png)",
        "",
        "## By family",
    ]
    for score, (heading, form) in SCORES.items():
        lines += ["", f"| {heading} | " + " | ".join(FAMILIES) + " |", "|---|" + "---:|" * len(FAMILIES)]
        for result in results:
            there = result["families"]
            numbers = " | ".join(format(there[family][score], form) if family in there else "" for family in FAMILIES)
            lines.append(f"| {result['name']} | {numbers} |")
    lines += [
        "",
        "## Published, on another data set",
        "",
        "OpenFWI's own samples, which are drawn otherwise and are many more: what the field has reached, not rows of "
        "the table above. MAE in m/s.",
        "",
        "| | all | " + " | ".join(FAMILIES) + " |",
        "|---|---:|" + "---:|" * len(FAMILIES),
    ]
    for name, values in PUBLISHED.items():
        lines.append(f"| {name} | {np.mean(values):.1f} | " + " | ".join(f"{value:g}" for value in values) + " |")
    lines += [f"| {name} | {value:g} |" + " |" * len(FAMILIES) for name, value in PUBLISHED_MEANS.items()]
    return "\n".join(lines) + "\n"


def _line(result: dict[str, Any]) -> str:
    scores, training = result["all"], result["training"]
    cost = "" if training is None else f"{training:,.0f}"
    return (
        f"| {result['name']} | {scores['mae']:.1f} | {scores['rmse']:.1f} | {scores['ssim']:.3f} | "
        f"{scores['boundary_iou']:.3f} | {cost} | {result['processor seconds a sample']:.3g} |"
    )


def ladder(results: list[dict[str, Any]]) -> Figure:
    """MAE against what training costs, and against what prediction costs: where is the next m/s cheapest?"""
    figure = Figure(figsize=(12, 4.6), layout="constrained")
    left, right, names = figure.subplots(1, 3, width_ratios=(4, 4, 2.6))
    ranked = sorted(results, key=lambda result: result["all"]["mae"])
    for axis, key, label in (
        (left, "training", "training (s of one core)"),
        (right, "processor seconds a sample", "prediction (s of one core a sample)"),
    ):
        for number, result in enumerate(ranked, start=1):
            if not result[key]:
                continue
            place, whole = (result[key], result["all"]["mae"]), result["samples"] == len(FAMILIES) * PER_FAMILY
            colour = "#1f6fb4" if "starter" in result["name"] else "#8a8a8a"
            axis.plot(*place, "o", color=colour, markerfacecolor=colour if whole else "white")
            # In turn on either side: neighbours in rank may lie on each other.
            side = (6, "left") if number % 2 else (-6, "right")
            axis.annotate(str(number), place, (side[0], 0), textcoords="offset points", ha=side[1], va="center")
        axis.margins(x=0.1)
        axis.set(xscale="log", xlabel=label, ylim=(0, None))
        axis.grid(alpha=0.3)
    left.set_ylabel("MAE on the test set (m/s)")
    spent = [factor * BUDGET for factor in (1, 2, 4, 8)]  # less than a decade, whose labels would lie on each other
    left.set_xticks(spent, [f"{seconds:,.0f}" for seconds in spent])
    left.minorticks_off()
    said = [
        f"{number}  {result['name'].removesuffix(', ten minutes of one core')}"
        + (f" ({result['samples']} samples)" if result["samples"] < len(FAMILIES) * PER_FAMILY else "")
        for number, result in enumerate(ranked, start=1)
    ]
    names.text(0, 1, "\n".join(said), va="top", fontsize=8.5, linespacing=1.6)
    names.axis("off")
    return figure


def picture(refined: Row) -> Figure | None:
    """The first sample of each family: truth, the starter's map, and what refinement made of it.

    None where the refined maps are not on this machine.
    """
    files = [refined.folder / family / "velocity" / f"{family}.npy" for family in FAMILIES]
    if not all(file.is_file() for file in files):
        return None
    gathers, truth = test_set()
    starter = load_model(refined.inputs[0]).predict(np.stack([family[0] for family in gathers]))
    maps = {
        "truth": truth[::PER_FAMILY],
        "starter": starter,
        "+ 60 s of\ninversion": np.stack([np.load(f)[0] for f in files]),
    }
    figure = contact_sheet(maps, columns=len(FAMILIES))
    for axis, family in zip(figure.axes, FAMILIES, strict=False):
        axis.set_title(family, fontsize=8)
    for row, name in enumerate(list(maps)[1:], start=1):
        for column, axis in enumerate(figure.axes[row * len(FAMILIES) : (row + 1) * len(FAMILIES)]):
            error = np.abs(maps[name][column] - truth[column * PER_FAMILY]).mean()
            axis.set_xlabel(f"MAE {error:.3g} m/s", fontsize=7, labelpad=2)
    return figure


def main() -> None:
    """Make the rows that are missing, then the page."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    kept = {result["name"]: result for result in json.loads(RESULT.read_text())} if RESULT.is_file() else {}
    table, missing = rows(), []
    for row in table:
        again = "rows" in words and row.name.startswith(words["rows"])
        if row.name in kept and not again:
            continue
        if words.get("only") == "table" or not all(path.is_file() for path in row.inputs):
            missing.append(row.name)
        else:
            if again:  # else predict.py would go on from what the folder holds
                shutil.rmtree(row.folder, ignore_errors=True)
            kept[row.name] = run(row)
            RESULT.write_text(json.dumps([kept[row.name] for row in table if row.name in kept], indent=1) + "\n")
    results = [kept[row.name] for row in table if row.name in kept]
    PAGE.write_text(page(results, missing))
    ladder(results).savefig(LADDER, dpi=120)
    if shown := picture(next(row for row in table if "refinement" in row.name)):
        shown.savefig(PICTURE, dpi=120)
    print(f"{PAGE}; left out for lack of a checkpoint: {', '.join(missing) or 'nothing'}")


if __name__ == "__main__":
    main()
