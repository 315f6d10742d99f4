"""Records with a part hidden, and what a pretrained encoder put there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fwi_lightning.figures.gathers import clip_level, draw_gather
from fwi_lightning.figures.panels import INK, frame_only, place
from fwi_lightning.survey import OPENFWI, Survey

COLUMNS = ("record", "with a part hidden", "filled in", "filled in - record")
WIDE, TALL, GAP = 2.3, 2.5, 0.08  # inches
LEFT, HEADING = 0.55, 0.35  # inches: names of samples, names of columns


@dataclass(frozen=True)
class Guess:
    """A sample, its hidden part, and the answer for that part.

    Attributes:
        name: What to write beside it.
        records: (shots, time, receivers), on any scale.
        hidden: Its hidden part, zero elsewhere; the same shape.
        guess: The answer, zero elsewhere; the same shape.
    """

    name: str
    records: NDArray[np.floating]
    hidden: NDArray[np.floating]
    guess: NDArray[np.floating]


def reconstructions(samples: Sequence[Guess], survey: Survey = OPENFWI) -> Figure:
    """Show a row of each sample: one shot's record, what was left of it, that with the answer, and the answer's error.

    The panels of a row share their colours, which are those of its record.

    Args:
        samples: The samples, below each other.
        survey: The acquisition; its samples and time step are those of the records. Default `OPENFWI`.

    Returns:
        The figure. Its axes, in order: the four panels of the first sample, and so on.

    Raises:
        ValueError: If there is no sample, or a shape is not the survey's.
    """
    if not samples:
        raise ValueError("reconstructions needs at least one sample.")
    across = LEFT + len(COLUMNS) * (WIDE + GAP)
    figure = Figure(figsize=(across, HEADING + len(samples) * (TALL + GAP) + 0.05))
    shot = survey.shots // 4  # not the middle one, in whose record left and right look alike
    for row, sample in enumerate(samples):
        kept = sample.records - sample.hidden
        panels = (sample.records, kept, kept + sample.guess, sample.guess - sample.hidden)
        limit = clip_level(sample.records, survey)
        for column, (title, values) in enumerate(zip(COLUMNS, panels, strict=True)):
            axis = place(figure, LEFT + column * (WIDE + GAP), HEADING + row * (TALL + GAP), WIDE, TALL)
            draw_gather(axis, values, shot, survey, limit)
            frame_only(axis)
            axis.set_title(title if row == 0 else "", fontsize=10.5, color=INK, pad=5)
            if column == 0:
                axis.set_ylabel(sample.name, fontsize=10, color=INK)
    return figure
