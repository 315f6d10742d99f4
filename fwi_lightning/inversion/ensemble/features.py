"""What can be said without labels about each member's map of a sample, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fwi_lightning.geology.boundaries import BOUNDARY_JUMP
from fwi_lightning.inversion.quality import USUAL, misfit
from fwi_lightning.physics import illuminate
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey

PHYSICS = ("none", "mean", "members")
"""What is simulated for features: nothing, the mean map, or every member's map too."""

QUARTERS = 4
"""Parts of the record whose energies are features."""


@dataclass(frozen=True)
class Inputs:
    """What the members say of some samples, and what the record says.

    Attributes:
        velocity: (members, samples, depth, width) float32 in m/s.
        record: (samples, numbers) from `read_record`.
        misfit: (samples, 1 or 1 + members): of the mean map, then of each member's; None without simulation.
        illumination: (samples, depth, width) of the mean map; None without simulation.
        scale: (members, samples), mean expected error in m/s; None unless all members have uncertainty heads.
    """

    velocity: Tensor
    record: Tensor
    misfit: Tensor | None = None
    illumination: Tensor | None = None
    scale: Tensor | None = None

    def rows(self, places: Tensor) -> Inputs:
        """Some of the samples."""
        return Inputs(
            self.velocity[:, places],
            self.record[places],
            None if self.misfit is None else self.misfit[places],
            None if self.illumination is None else self.illumination[places],
            None if self.scale is None else self.scale[:, places],
        )


@dataclass(frozen=True)
class Features:
    """Numbers about samples; each column belongs to a named block.

    Attributes:
        own: (members, samples, columns), about each member's map.
        shared: (samples, columns), about the sample.
        own_blocks: Name of the block of each column of `own`.
        shared_blocks: The same of `shared`.
    """

    own: Tensor
    shared: Tensor
    own_blocks: tuple[str, ...]
    shared_blocks: tuple[str, ...]

    def rows(self, places: Tensor) -> Features:
        """Some of the samples."""
        return Features(self.own[:, places], self.shared[places], self.own_blocks, self.shared_blocks)


def read_record(gathers: Tensor, survey: Survey) -> Tensor:
    """What is kept of recorded gathers.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        survey: The survey.

    Returns:
        (batch, 1 + QUARTERS + shots): log10 of the rms; share of the energy in each part of the time axis; velocity at
        each shot in m/s, 0 where the record does not tell it.
    """
    energy = gathers.double().square().sum(dim=(1, 3))
    total = energy.sum(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    parts = torch.stack([part.sum(dim=1) for part in energy.tensor_split(QUARTERS, dim=1)], dim=1) / total
    known = source_velocity(gathers, survey).nan_to_num(0.0)
    level = (total / gathers[0].numel()).log10() / 2
    return torch.cat([level, parts, known.double()], dim=1).float()


def simulate_maps(velocity: Tensor, gathers: Tensor, survey: Survey, physics: str) -> tuple[Tensor, Tensor]:
    """Misfits and illumination of the mean map, and the misfit of every member's map if asked for.

    Args:
        velocity: (members, batch, depth, width) in m/s.
        gathers: (batch, shots, time, receivers) as recorded.
        survey: The survey.
        physics: "mean" or "members".

    Returns:
        (batch, 1 or 1 + members) misfits, as `quality.misfit`; (batch, depth, width) illumination.
    """
    maps = velocity.clamp(*USUAL)
    simulated, illumination = illuminate(maps.mean(dim=0), survey)
    misfits = [relative_rms(gathers, simulated)]
    if physics == "members":
        misfits += [misfit(gathers, one[:, None], survey) for one in maps]
    return torch.stack(misfits, dim=1).float(), illumination.float()


def describe(inputs: Inputs, survey: Survey, maps: Tensor | None = None) -> Features:
    """The features of each member's map, or of other maps beside them.

    Args:
        inputs: What the members say.
        survey: The survey.
        maps: (maps, samples, depth, width) to describe instead of the members'. Their misfit counts as that of the
            mean map, their expected error as the mean of the members'. Default: the members' maps.

    Returns:
        The features; blocks "map", "disagreement", "shots", "record" and, if the inputs have them, "misfit",
        "illumination" and "uncertainty".
    """
    centre = inputs.velocity.mean(dim=0)
    spread = inputs.velocity.std(dim=0, correction=0)
    given = inputs.velocity if maps is None else maps
    shots = inputs.record[:, 1 + QUARTERS :]
    own = [
        ("map", _shape(given)),
        ("disagreement", _thirds((given - centre).abs()) / 100),
        ("disagreement", _thirds(given - centre) / 100),
        ("shots", _error_at_shots(given, shots, survey)),
    ]
    shared = [
        ("map", _shape(centre)),
        ("disagreement", _thirds(spread) / 100),
        ("shots", (shots > 0).float().mean(dim=1, keepdim=True)),
        ("record", inputs.record[:, : 1 + QUARTERS]),
    ]
    if inputs.misfit is not None and inputs.illumination is not None:
        shared.append(("misfit", inputs.misfit[:, :1]))
        each = inputs.misfit[:, 1:].T[..., None] if inputs.misfit.shape[1] > 1 else None
        if each is not None:
            each = each if maps is None else inputs.misfit[None, :, :1].expand(len(maps), -1, -1)
            least = inputs.misfit[:, 1:].amin(dim=1)[None, :, None]
            own.append(("misfit", torch.cat([each, each - least], dim=2)))
        shared.append(("illumination", _light(inputs.illumination, spread)))
    if inputs.scale is not None:
        scale = inputs.scale if maps is None else inputs.scale.mean(dim=0).expand(len(maps), -1)
        own.append(("uncertainty", scale[..., None] / 100))
    return Features(
        torch.cat([values for _, values in own], dim=2),
        torch.cat([values for _, values in shared], dim=1),
        tuple(name for name, values in own for _ in range(values.shape[2])),
        tuple(name for name, values in shared for _ in range(values.shape[1])),
    )


def _shape(velocity: Tensor) -> Tensor:
    """(..., depth, width) in m/s to (..., 11): level, range, roughness, jumps, growth with depth."""
    flat = velocity.flatten(-2)
    down, right = velocity.diff(dim=-2), velocity.diff(dim=-1)
    steep = down.abs() > 0.2 * BOUNDARY_JUMP
    parts = [
        flat.mean(-1) / 1000,
        flat.std(-1, correction=0) / 1000,
        flat.amin(-1) / 1000,
        flat.amax(-1) / 1000,
        velocity[..., : velocity.shape[-2] // 3, :].mean(dim=(-2, -1)) / 1000,
        velocity[..., -(velocity.shape[-2] // 3) :, :].mean(dim=(-2, -1)) / 1000,
        down.abs().mean(dim=(-2, -1)) / 100,
        right.abs().mean(dim=(-2, -1)) / 100,
        (down.abs() > BOUNDARY_JUMP).float().mean(dim=(-2, -1)),
        (right.abs() > BOUNDARY_JUMP).float().mean(dim=(-2, -1)),
        ((down > 0) & steep).float().sum(dim=(-2, -1)) / steep.float().sum(dim=(-2, -1)).clamp_min(1),
    ]
    return torch.stack(parts, dim=-1)


def _thirds(values: Tensor) -> Tensor:
    """Means of (..., depth, width) over upper, middle and lower third, (..., 3)."""
    return torch.stack([part.mean(dim=(-2, -1)) for part in values.tensor_split(3, dim=-2)], dim=-1)


def _error_at_shots(velocity: Tensor, known: Tensor, survey: Survey) -> Tensor:
    """Mean absolute error at the shots whose velocity the record tells, (members, samples, 1) in 100 m/s; else 0."""
    there = (known > 0).float()
    error = (velocity[:, :, survey.shot_row, list(survey.shot_columns)] - known).abs() * there
    return (error.sum(dim=2) / there.sum(dim=1).clamp_min(1) / 100)[..., None]


def _light(illumination: Tensor, spread: Tensor) -> Tensor:
    """How evenly the map is lit, and how much of the disagreement lies in its darker half, (samples, 2)."""
    light, flat = illumination.flatten(1), spread.flatten(1)
    dark = light <= light.median(dim=1, keepdim=True).values
    share = (flat * dark).sum(dim=1) / flat.sum(dim=1).clamp_min(1e-6)
    deep, shallow = (part.mean(dim=(1, 2)) for part in (illumination[:, -20:], illumination[:, :20]))
    tiny = torch.finfo(torch.float32).tiny
    return torch.stack([share, (deep.clamp_min(tiny) / shallow.clamp_min(tiny)).log10()], dim=1)
