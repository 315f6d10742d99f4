"""Surveys that `simulate` wrote with fewer time samples, or with more shots, than the survey that is trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwi_lightning.data.ledger import MANIFEST, describe_difference
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey


@dataclass(frozen=True)
class Kept:
    """What the files of a simulated survey hold of its records.

    Attributes:
        survey: The survey that was simulated.
        step: Of so many time samples one was kept, beginning with sample 0.
    """

    survey: Survey
    step: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of a sample in the files, (shots, time, receivers)."""
        return self.survey.thinned(self.step)

    def shots_of(self, survey: Survey) -> list[int]:
        """Places in the files of another survey's shots.

        Args:
            survey: The survey, which differs in its shots alone.
        """
        return [self.survey.shot_columns.index(column) for column in survey.shot_columns]


def find_kept(path: Path, survey: Survey) -> Kept | None:
    """What the manifest above a file says that the file holds.

    Args:
        path: A file of gathers.
        survey: The survey that is wanted of it.

    Returns:
        What is kept, or None where no manifest of a simulated survey lies in one of the three folders above.

    Raises:
        UserError: If another survey was simulated: one that differs in more than shots beside those wanted.
    """
    settings = next((found for folder in path.parents[:3] if (found := _settings(folder / MANIFEST))), None)
    if settings is None:
        return None
    simulated = Survey(**settings["survey"])
    before, now = simulated.to_dict(), survey.to_dict()
    lacking = set(now.pop("shot_columns")) - set(before.pop("shot_columns"))
    if before != now or lacking:
        if before == now:
            before, now = simulated.to_dict(), survey.to_dict()
        difference = describe_difference("survey", before, now)
        raise UserError(f"{path} was simulated {difference}: set the survey to that one, or simulate yours.")
    return Kept(simulated, simulated.thinning("time_step", settings.get("time_step", simulated.time_step)))


def check_alike(shapes: Sequence[tuple[Path, tuple[int, int, int]]]) -> None:
    """Refuse data of which some is thinned and some is not.

    Args:
        shapes: Each file and the shape of its samples, (shots, time, receivers).

    Raises:
        UserError: If two differ in their time samples.
    """
    for path, shape in shapes[1:]:
        first, known = shapes[0]
        if shape[1] != known[1]:
            raise UserError(
                f"{first} holds records of {known[1]} time samples and {path} of {shape[1]}: train on files of one "
                "time step, thin the others with simulate time_step=."
            )


def _settings(path: Path) -> dict[str, Any] | None:
    """The settings in a manifest of a simulated survey; None if it is none."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return dict(settings) if isinstance(settings["survey"], dict) and "samples_per_family" in settings else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
