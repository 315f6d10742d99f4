"""The report of a training run: `figures/*.png` and `report.html` in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fwi_lightning.figures.boundaries import boundaries as draw_boundaries
from fwi_lightning.figures.boundaries import classify
from fwi_lightning.figures.changes import Change, changes
from fwi_lightning.figures.curves import family_bars, training_curves
from fwi_lightning.figures.inversion import gallery, inversion
from fwi_lightning.figures.panels import as_map
from fwi_lightning.geology.boundaries import BOUNDARY_JUMP, boundaries
from fwi_lightning.report.example import Example
from fwi_lightning.report.page import Block, Code, Headline, Picture, Section, draw, write_page
from fwi_lightning.report.tables import OVERALL, Rows, Table, family_cells
from fwi_lightning.survey import OPENFWI, Survey
from fwi_lightning.training.metrics import BOUNDARY_TOLERANCE


@dataclass(frozen=True)
class RunSummary:
    """What a run was, in numbers.

    Attributes:
        training_samples: Samples trained on.
        validation_samples: Samples that the scores are of.
        parameters: Trainable numbers of the model.
        seconds: Duration of the training.
    """

    training_samples: int
    validation_samples: int
    parameters: int
    seconds: float


@dataclass(frozen=True)
class RunReport:
    """All that the report of a run tells.

    Attributes:
        title: What was run, such as "shallow_unet, fold 0 of 5".
        summary: What the run was, in numbers.
        rows: Scores of the best checkpoint per family and for "all".
        baseline_rows: The same of the mean of the training maps.
        metrics: Rows of metrics.csv as `read_metrics` gives them.
        examples: Validation samples with truth, one or more of each family; two to twenty draw well.
        config: The run's configuration.
        environment: Name -> value: versions, commit, seed, device.
        survey: The acquisition. Default `OPENFWI`.
        augmented: Training samples before and after augmentation. Default none.
    """

    title: str
    summary: RunSummary
    rows: Rows
    baseline_rows: Rows
    metrics: Sequence[Mapping[str, float]]
    examples: Sequence[Example]
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    survey: Survey = OPENFWI
    augmented: Sequence[Change] = ()


def write_run_report(folder: Path, report: RunReport) -> Path:
    """Write `folder/figures/*.png` and `folder/report.html`.

    Args:
        folder: The run folder.
        report: What to tell.

    Returns:
        The path of the page.

    Raises:
        UserError: If the folder cannot be written.
    """
    figures = folder / "figures"
    sections = [
        Section("", [_headlines(report)]),
        Section("Scores per family", _scores(report, figures)),
        Section("Training", [_curves(report, figures)]),
        Section("Samples", _samples(report, figures)),
        Section("Boundaries", _boundaries(report, figures)),
        Section("Augmented pairs", _augmented(report, figures)),
        Section(
            "The run",
            [
                environment_table(report.environment),
                Code(OmegaConf.to_yaml(dict(report.config)), "configuration"),
            ],
        ),
    ]
    path = folder / "report.html"
    write_page(path, report.title, [section for section in sections if section.blocks])
    return path


def _headlines(report: RunReport) -> tuple[Headline, ...]:
    overall, summary = report.rows[OVERALL], report.summary
    baseline = report.baseline_rows[OVERALL]["mae"]
    return (
        Headline(
            "MAE on validation samples",
            f"{overall['mae']:.1f} m/s",
            f"{overall['mae'] / baseline:.2f} of the mean map's {baseline:.1f}" if baseline else "",
        ),
        Headline("SSIM", f"{overall['ssim']:.3f}", "1 is a perfect map"),
        Headline("boundary IoU", f"{overall['boundary_iou']:.3f}", "1 is every layer boundary in place"),
        Headline("samples", f"{summary.training_samples:,}", f"and {summary.validation_samples:,} to validate"),
        Headline("parameters", count(summary.parameters), "trainable"),
        Headline("training took", duration(summary.seconds)),
    )


def _scores(report: RunReport, figures: Path) -> list[Block]:
    errors = {name: row["mae"] for name, row in report.rows.items()}
    baseline = {name: row["mae"] for name, row in report.baseline_rows.items()}
    caption = "Mean absolute error per family. Grey: always predicting the mean of the training maps."
    bars = draw(family_bars(errors, baseline), caption, figures / "families.png")
    return [family_cells(report.rows, report.baseline_rows), bars]


def _curves(report: RunReport, figures: Path) -> Picture:
    baseline = report.baseline_rows[OVERALL]["mae"]
    caption = "Loss of each training batch, MAE on the validation samples after each epoch, and the learning rate."
    return draw(training_curves(report.metrics, baseline), caption, figures / "curves.png")


def _samples(report: RunReport, figures: Path) -> list[Block]:
    """One sample per family in a gallery, then the best and the worst of all in full."""
    known = [example for example in report.examples if example.truth is not None]
    first: dict[str, tuple[NDArray[np.floating], NDArray[np.floating]]] = {}
    for example in known:
        if example.truth is not None:
            first.setdefault(example.family or example.name, (example.truth, example.prediction))
    if not first:
        return []
    blocks: list[Block] = [
        draw(
            gallery(first, survey=report.survey),
            "One validation sample per family: true map, predicted map, predicted minus true.",
            figures / "gallery.png",
        )
    ]
    ranked = sorted(known, key=lambda example: example.mae)
    for name, example in {"best": ranked[0], "worst": ranked[-1]}.items():
        caption = (
            f"The {name} of the {len(known)} samples drawn for this report, MAE {example.mae:.1f} m/s. "
            "Red triangles: shots. Right: velocity down the three dashed columns."
        )
        blocks.append(draw_example(example, report.survey, caption, figures / f"{name}.png"))
        if len(ranked) == 1:
            break
    return blocks


def draw_example(example: Example, survey: Survey, caption: str, path: Path | None = None) -> Picture:
    """Draw one sample in full.

    Args:
        example: The sample.
        survey: The acquisition.
        caption: What it shows.
        path: Also write the PNG here. Default None, for the page alone.
    """
    figure = inversion(example.gathers, example.prediction, example.truth, survey, example.title)
    return draw(figure, caption, path)


def _boundaries(report: RunReport, figures: Path) -> list[Block]:
    """The sample whose boundary IoU is nearest to the overall one, of those that have boundaries."""
    candidates = [masked for example in report.examples if (masked := _masked(example)) and masked[2].any()]
    if not candidates:
        return []
    # boundaries of layers explain themselves, the speckle of a texture does not
    candidates = [item for item in candidates if not item[0].family.startswith("Style")] or candidates
    overall = report.rows[OVERALL]["boundary_iou"]
    example, truth, true, predicted = min(
        candidates, key=lambda item: abs(classify(item[2], item[3], BOUNDARY_TOLERANCE)[1] - overall)
    )
    figure = draw_boundaries(truth, example.prediction, true, predicted, BOUNDARY_TOLERANCE, report.survey)
    caption = (
        f"How boundary IoU is counted, on {example.title}. A boundary cell differs by more than "
        f"{BOUNDARY_JUMP:g} m/s from a neighbour; it is a hit if the other map has a boundary within "
        f"{BOUNDARY_TOLERANCE} cell. IoU = hits / (hits + misses + false alarms), hits being the mean of the "
        "true and of the predicted cells that were hit."
    )
    return [draw(figure, caption, figures / "boundaries.png")]


def _masked(
    example: Example,
) -> tuple[Example, NDArray[np.floating], NDArray[np.bool_], NDArray[np.bool_]] | None:
    """A sample with its truth and the boundaries of truth and prediction, None without a truth."""
    if example.truth is None:
        return None
    true, predicted = (
        boundaries(torch.as_tensor(as_map(velocity, example.name))).numpy()
        for velocity in (example.truth, example.prediction)
    )
    return example, example.truth, true, predicted


def _augmented(report: RunReport, figures: Path) -> list[Block]:
    """Training samples before and after augmentation."""
    if not report.augmented:
        return []
    caption = (
        "Training samples of the first epoch as they were and as the model was given them: maps above, the gathers "
        "of one shot below. Not every sample is changed."
    )
    return [draw(changes(report.augmented, report.survey), caption, figures / "augmented.png")]


def environment_table(environment: Mapping[str, Any]) -> Table:
    """What a person needs to run the same again, as a table of two columns."""
    rows = tuple((str(name), str(value)) for name, value in environment.items())
    return Table(headings=("what", "value"), rows=rows, align="ll")


def count(number: int) -> str:
    """A large number in few digits: 1,234, 56.7 k, 8.9 M."""
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.3g} k" if number < 999_500 else f"{number / 1e6:.3g} M"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 5 min 20 s, 3 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
