"""The mirror image of a recorded sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from fwi_lightning.data.augment.base import Augmentation, Partner, Sample, check_probability
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

MISSING_SHOT = ("simulate", "silence")


class Flip(Augmentation):
    """Mirrors map and gathers left to right: exact, since the wave equation knows no left and right.

    The gather of a shot over the mirrored map is that of the shot in the mirrored column over the map, with the
    receivers mirrored. In OpenFWI's survey the shots stand at 0, 17, 34, 52 and 69 of 70 columns, and the mirror
    image of the third at 35, where none was fired. Such a shot is taken from a file that holds it besides the survey's
    (docs/data.md), else simulated or left out; the other four are the recorded ones. A survey that is its own mirror
    image needs none of this. Illumination, where a loss needs it as a weight,
    is mirrored as a whole: it is that of the mirror images of all shots.

    Args:
        survey: The survey of the gathers.
        probability: Share of the samples that are mirrored. Default 0.5.
        missing_shot: What becomes of a shot whose mirror image was not recorded: "simulate" (over the mirrored map,
            the default; a fifth of a sample's simulation in OpenFWI) or "silence" (zeros, for a network that is to
            stand the loss of a shot).

    Raises:
        UserError: If a setting is out of range, or the receivers are not their own mirror image.
    """

    def __init__(self, survey: Survey, probability: float = 0.5, missing_shot: str = "simulate") -> None:
        super().__init__(survey)
        self.probability = check_probability("probability", probability)
        if missing_shot not in MISSING_SHOT:
            raise UserError(f"missing_shot must be {' or '.join(MISSING_SHOT)}, got {missing_shot!r}.")
        self.simulated = missing_shot == "simulate"
        self.shots = mirrored(survey.shot_columns, survey)
        receivers = mirrored(survey.receiver_columns, survey)
        self.receivers = [place for place in receivers if place is not None]
        if len(self.receivers) < len(receivers):
            column = survey.receiver_columns[receivers.index(None)]
            raise UserError(
                f"flip needs a receiver at the mirror image of each, but that of column {column}, "
                f"{survey.grid[1] - 1 - column}, has none: use augment=physics, which simulates flipped maps."
            )

    def change(self, sample: Sample, generator: np.random.Generator, partner: Partner) -> Sample:
        """The mirror image of the sample, or the sample."""
        if generator.random() >= self.probability:
            return sample
        gathers, missing = torch.zeros_like(sample.gathers), torch.zeros_like(sample.missing)
        spare = sample.spare or {}
        for shot, image in enumerate(self.shots):
            column = self.survey.grid[1] - 1 - self.survey.shot_columns[shot]
            if image is not None:
                gathers[shot] = sample.gathers[image][:, self.receivers]
                missing[shot] = sample.missing[image]
            elif column in spare:
                gathers[shot] = spare[column][:, self.receivers]
            else:
                # Nothing of a fresh sample is recorded yet: its simulation may as well include this shot.
                missing[shot] = self.simulated or bool(sample.missing.all())
        illumination = None if sample.illumination is None else sample.illumination.flip(-1)
        velocity = sample.velocity.flip(-1)
        flipped = replace(sample, gathers=gathers, missing=missing, velocity=velocity, illumination=illumination)
        return replace(flipped, spare=None)


def mirrored(columns: Sequence[int], survey: Survey) -> list[int | None]:
    """For each column the place in the list of its mirror image, None where that is not in the list."""
    places = {column: place for place, column in enumerate(columns)}
    return [places.get(survey.grid[1] - 1 - column) for column in columns]
