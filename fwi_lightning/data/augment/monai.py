"""MONAI's dictionary transforms on training gathers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fwi_lightning.data.augment.base import Augmentation
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

KEY = "gathers"
"""The key of the dictionary that transforms change: the ground stays as it is."""

HOMES = {"intensity": "random changes of amplitudes", "croppad": "pads and crops"}
"""Modules of monai.transforms whose dictionary transforms may be used, and what they do."""

CASTS = ("EnsureTyped", "CastToTyped")

SIZES = ("roi_size", "spatial_size")
"""Settings that are the record's own size where they are left out."""


class Monai(Augmentation):
    """A pipeline of MONAI's dictionary transforms (Cardoso et al., 2022, arXiv:2211.02701), over each training sample.

    A record is an image of (time, receivers) with a channel for each shot. Chance comes from seed, epoch and sample,
    not from MONAI's own state. Only training samples go through it, so what is not random would make them differ from
    those that are validated and predicted: of intensity transforms only random ones are taken. Spatial ones are not
    taken at all: RandFlipd, for one, would mirror the receivers and leave the order of the shots.

    Args:
        survey: The survey of the gathers.
        transforms: Name of a step to its settings, in the order in which they are done: `transform`, the name of a
            class of monai.transforms, and its own arguments without `keys`. Sizes (`roi_size`, `spatial_size`) that are
            left out are (samples, receivers) of the survey.

    Raises:
        UserError: If a transform is none of those taken, does not take its settings, or the pipeline does not end
            with records of the survey's shape.
    """

    def __init__(self, survey: Survey, transforms: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(survey)
        from monai.transforms import Compose  # a second or more, which only those who use it wait for

        self.pipeline = Compose([_make(name, settings, survey) for name, settings in transforms.items()])
        shape = survey.gathers_shape
        ramp = torch.linspace(-1, 1, math.prod(shape)).reshape(shape)
        try:
            found = tuple(self._apply(ramp, 0).shape)
        except Exception as error:  # whatever a transform stumbles over
            reason = error.__cause__ or error
            raise UserError(f"data.monai does not work on a record of {shape}: {reason}") from error
        if found != shape:
            raise UserError(
                f"data.monai makes records of {found}, and a model reads {shape}, as (shots, time, receivers): "
                "crop or pad them back."
            )

    def corrupt(self, gathers: Tensor, seed: int) -> None:
        """Change the gathers of a sample, (shots, time, receivers), in place."""
        gathers.copy_(self._apply(gathers, seed))

    def _apply(self, gathers: Tensor, seed: int) -> Tensor:
        self.pipeline.set_random_state(seed)
        with _plain_tensors():
            changed: dict[str, Tensor] = self.pipeline({KEY: gathers.clone()})
        return changed[KEY]


@contextmanager
def _plain_tensors() -> Iterator[None]:
    """Without MetaTensor, which costs time and does not go through a queue of workers."""
    from monai.data import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def _make(name: str, settings: Mapping[str, Any], survey: Survey) -> Any:
    """One transform.

    Raises:
        UserError: If it is not taken, or does not take its settings.
    """
    arguments = dict(settings)
    kind = _find(name, arguments.pop("transform", None))
    if arguments.pop("keys", [KEY]) != [KEY]:
        raise UserError(f"data.monai.{name}.keys: transforms change the gathers alone, leave it out.")
    known = inspect.signature(kind).parameters
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        settable = [argument for argument in known if argument != "keys"]
        raise UserError(f"data.monai.{name}: {kind.__name__} has no {unknown[0]!r}; it has {', '.join(settable)}.")
    size = [survey.samples, survey.receivers]
    arguments = {argument: size for argument in SIZES if argument in known} | arguments
    try:
        return kind(keys=[KEY], **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.monai.{name}: {kind.__name__} does not take these settings: {error}") from error


def _find(name: str, transform: Any) -> type:
    """The class of a transform's name.

    Raises:
        UserError: If it is none of those taken.
    """
    import monai.transforms
    from monai.transforms import MapTransform, Randomizable

    found = getattr(monai.transforms, str(transform), None)
    if not (inspect.isclass(found) and issubclass(found, MapTransform)):
        raise UserError(
            f"data.monai.{name}.transform must be the name of a dictionary transform of monai.transforms, as "
            f"RandGaussianNoised, got {transform!r}."
        )
    home = found.__module__.removeprefix("monai.transforms.").split(".")[0]
    if home == "spatial":
        raise UserError(
            f"data.monai.{name}: {transform} would move traces and neither shots nor ground: take augment=flip, which "
            "mirrors all three, or augment=physics, which simulates the new ground."
        )
    if home == "intensity" and not issubclass(found, Randomizable):
        raise UserError(
            f"data.monai.{name}: {transform} would change every record in training and none in validation: scaling is "
            "the model's (model.amplitudes)."
        )
    if home not in HOMES and transform not in CASTS:
        words = "; ".join(f"{words} (monai.transforms.{place})" for place, words in HOMES.items())
        raise UserError(f"data.monai.{name}: {transform} is not taken; taken are {', '.join(CASTS)}; {words}.")
    return found
