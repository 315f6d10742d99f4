"""Whether the gathers are what the survey would have recorded: asked before any work is done on them."""

from __future__ import annotations

import sys

import numpy as np
import torch

from fwi_lightning.data import GathersDataset
from fwi_lightning.data.training import Look
from fwi_lightning.errors import UserError
from fwi_lightning.models import InputTransform
from fwi_lightning.physics.fingerprint import fingerprint
from fwi_lightning.survey import Survey

LOOKED_AT = 8
"""Samples that stand for all, spread evenly over the data: reading them takes a tenth of a second."""


def compare_with_survey(samples: GathersDataset | Look, survey: Survey) -> str:
    """Compare a few samples with the survey and print a warning for each way in which they differ.

    No error: filtered field data is legitimate, but whoever mistook the survey should know before the training.

    Args:
        samples: Their gathers are looked at.
        survey: The survey that is said to have recorded them.

    Returns:
        What differs, for the files that describe the run: sentences joined by ";", or "nothing found in 8 samples".
    """
    places = np.unique(np.linspace(0, len(samples) - 1, LOOKED_AT).astype(int)).tolist()
    gathers = torch.stack([samples[place]["gathers"] for place in places])
    if gathers.shape[2] != survey.samples:
        return "not looked for: the records are thinned, and their manifest names the survey"
    differences = fingerprint(gathers, survey).differences()
    for sentence in differences:
        print(f"warning: {sentence}", file=sys.stderr)
    return "; ".join(differences) or f"nothing found in {len(places)} samples"


def check_thinning(samples: int, transform: InputTransform) -> None:
    """Refuse records that were thinned to another time step than a model reads.

    Args:
        samples: Time samples of the records.
        transform: The model's.

    Raises:
        UserError: If they were.
    """
    survey = transform.survey
    if samples not in (survey.samples, transform.samples):
        step = survey.thinning_of(samples) * survey.time_step
        raise UserError(
            f"the data was thinned to a sample every {step:g} s, and model.time_step is "
            f"{transform.step * survey.time_step:g}: set model.time_step={step:g}."
        )
