"""Several models as one: what `load_model` gives for the file of an ensemble."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.ensemble.blender import Blender
from fwi_lightning.inversion.ensemble.features import Inputs, read_record, simulate_maps
from fwi_lightning.models import Answer, VelocityModel
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import load_model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemberFile:
    """A member of an ensemble.

    Attributes:
        path: Its checkpoint.
        group: Number of its group: members of one group, trained on different folds, count as their mean.
        digest: SHA-256 of the file that the weights were fitted with; "" if any will do.
    """

    path: Path
    group: int
    digest: str = ""


class Members:
    """Members that are loaded when they are first asked, and kept as far as the memory goes.

    Args:
        files: The members.
        survey: What they must have been trained for.
        memory_mb: MB (10^6 bytes) of weights that are kept; the one asked is always loaded, and then the one not asked
            for longest goes.
        device: Where they predict.
    """

    def __init__(
        self, files: Sequence[MemberFile], survey: Survey, memory_mb: float, device: str | torch.device = "cpu"
    ) -> None:
        self.files, self.survey, self.memory_mb, self.device = list(files), survey, memory_mb, torch.device(device)
        self.dtype: torch.dtype | None = None
        self.loaded: dict[int, VelocityModel] = {}
        self.warned: set[int] = set()
        self.missing: set[int] = set()
        self._checked: set[int] = set()

    def ask(self, place: int, gathers: Tensor) -> Answer | None:
        """A member's answer, on the CPU; None, with a warning, if it fails."""
        if place in self.missing:
            return None
        try:
            model = self._model(place)
        except UserError as error:
            self.missing.add(place)
            self._warn(place, str(error))
            return None
        try:
            answer = model.predict_answer(gathers, len(gathers))
        except (RuntimeError, ValueError) as error:
            self._warn(place, f"it fails: {error}")
            return None
        if not answer.velocity.isfinite().all():
            self._warn(place, "its maps are not finite.")
            return None
        return answer

    def drop(self) -> None:
        """Forget what is loaded; the next question loads it again."""
        self.loaded.clear()

    def _model(self, place: int) -> VelocityModel:
        if place in self.loaded:
            self.loaded[place] = self.loaded.pop(place)  # the last one asked goes to the end
            return self.loaded[place]
        file = self.files[place]
        if file.digest and place not in self._checked and file.path.is_file():
            with file.path.open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != file.digest:
                    raise UserError("it is not the file that the weights were fitted with.")
            self._checked.add(place)
        model = load_model(file.path)
        if model.survey != self.survey:
            raise UserError("it is of another survey.")
        if self.dtype is not None:
            model.lower(self.dtype)
        size = _megabytes(model)
        kept = sum(map(_megabytes, self.loaded.values()))
        while self.loaded and kept + size > self.memory_mb:
            kept -= _megabytes(self.loaded.pop(next(iter(self.loaded))))
        self.loaded[place] = model.to(self.device)
        return model

    def _warn(self, place: int, reason: str) -> None:
        if place not in self.warned:
            self.warned.add(place)
            log.warning(
                "%s is left out, and the weights of the others are raised to the sum of 1: %s",
                self.files[place].path,
                reason,
            )


def _megabytes(model: VelocityModel) -> float:
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


class Ensemble(VelocityModel):
    """Weighs the maps of its members; to everything else it is a model like any other.

    A member that is missing or fails is left out, with a warning, and the weights of the others are raised to the sum
    of 1; without one, static weights take the place of the meta-learner's.

    Args:
        survey: The survey.
        members: The members, taken in turn.
        blender: What weighs them.
        families: Names of the families that the blender tells apart. Default: it does not.
        physics: What is simulated for its features, of `features.PHYSICS`. Default "none".
        judges: Whether the blender was fitted on samples, and its expected errors, SSIM and families mean anything.
            Default True.
        source_velocity: What a member does with the velocity at the shots; see `KnownVelocity`. Default "none".
    """

    def __init__(
        self,
        survey: Survey,
        members: Members,
        blender: Blender,
        families: Sequence[str] = (),
        physics: str = "none",
        judges: bool = True,
        source_velocity: str = "none",
    ) -> None:
        super().__init__(survey, source_velocity=source_velocity, uncertainty_head=judges)
        self.members, self.blender, self.physics, self.judges = members, blender.eval(), physics, judges
        self.families = tuple(families) if judges else ()

    def answer(self, gathers: Tensor) -> Answer:
        """As `VelocityModel.answer`, on the CPU and without gradients.

        Raises:
            UserError: If the shape is not the survey's, or no member can answer.
        """
        self.check(gathers)
        groups: dict[int, list[Answer]] = {}
        for place, file in enumerate(self.members.files):
            found = self.members.ask(place, gathers)
            if found is not None:
                groups.setdefault(file.group, []).append(found)
        if not groups:
            raise UserError("no member of this ensemble can predict: the warnings above say why.")
        there = sorted(groups)
        velocity = torch.stack([torch.stack([one.velocity[:, 0] for one in groups[g]]).mean(dim=0) for g in there])
        if len(there) < self.blender.members:
            return self._without(velocity, there)
        return self._blend(velocity, groups, gathers.float().cpu())

    def _blend(self, velocity: Tensor, groups: dict[int, list[Answer]], gathers: Tensor) -> Answer:
        if not self.judges:
            weights = self.blender.weights[:, None, None, None]
            return Answer((weights * velocity).sum(dim=0)[:, None])
        scales = [[one.scale for one in groups[g] if one.scale is not None] for g in sorted(groups)]
        scale = None
        if all(scales):
            scale = torch.stack([torch.stack(one).mean(dim=(0, 2, 3, 4)) for one in scales])
        misfit: Tensor | None = None
        illumination: Tensor | None = None
        if self.physics != "none":
            misfit, illumination = simulate_maps(velocity, gathers, self.survey, self.physics)
        blend = self.blender(Inputs(velocity, read_record(gathers, self.survey), misfit, illumination, scale))
        return Answer(blend.velocity[:, None], blend.scale[:, None], blend.family, ssim=blend.ssim)

    def _without(self, velocity: Tensor, there: Sequence[int]) -> Answer:
        """The answer of the groups that are left."""
        weights = self.blender.weights[list(there)]
        weights = weights / weights.sum() if weights.sum() > 0 else torch.full_like(weights, 1 / len(weights))
        weights = weights[:, None, None, None]
        blended = (weights * velocity).sum(dim=0)
        if not self.judges:
            return Answer(blended[:, None])
        scale = self.blender.cell_errors(velocity, weights, blended)
        unknown = torch.zeros(len(blended), len(self.families))
        return Answer(blended[:, None], scale[:, None], unknown, ssim=torch.full((len(blended),), torch.nan))

    def lower(self, dtype: torch.dtype) -> Self:
        """Let the members' networks compute in another precision; what weighs them stays in float32."""
        self.members.dtype = dtype
        self.members.drop()
        return self
