"""The velocity at the shots, which clean gathers give away, as a help for a model."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.models.scale import normalise_velocity
from fwi_lightning.physics.fingerprint import source_velocity
from fwi_lightning.survey import Survey

USES = ("none", "channel", "constraint")


class KnownVelocity(nn.Module):
    """What a model does with the velocity in the cells of the shots; see `physics.fingerprint.source_velocity`.

    Where it cannot be read, as in filtered or noisy gathers, a channel holds zeros and a constraint changes nothing.

    Args:
        survey: The survey.
        use: "none"; "channel" gives the network one more input; "constraint" writes it into the map. Default "none".

    Raises:
        UserError: If `use` is none of these.
    """

    weights: Tensor

    def __init__(self, survey: Survey, use: str = "none") -> None:
        super().__init__()
        if use not in USES:
            raise UserError(f"model.source_velocity must be {', '.join(USES[:-1])} or {USES[-1]}, got {use!r}.")
        self.survey = survey
        self.use = use
        self.channels = int(use == "channel")
        self.register_buffer("weights", _interpolation(survey), persistent=False)

    def widen(self, inputs: Tensor, gathers: Tensor) -> Tensor:
        """Add the channel to (batch, shots, samples, receivers), from gathers as recorded.

        It holds the velocity on the label scale, from shot to shot in a straight line along the receivers, the same at
        all times; a shot whose velocity cannot be read counts as 0.
        """
        if self.use != "channel":
            return inputs
        known = normalise_velocity(source_velocity(gathers, self.survey)).nan_to_num(0.0)
        line = (known[:, :, None] * self.weights).sum(dim=1)  # no matmul, which autocast would do in half precision
        return torch.cat([inputs, line[:, None, None].expand(-1, 1, inputs.shape[2], -1)], dim=1)

    def constrain(self, velocity: Tensor, gathers: Tensor) -> Tensor:
        """Write what is known into maps (batch, 1, depth, width) in m/s; all other cells stay as they are."""
        if self.use != "constraint":
            return velocity
        known = source_velocity(gathers, self.survey)
        cells = (slice(None), 0, self.survey.shot_row, list(self.survey.shot_columns))
        velocity = velocity.clone()
        velocity[cells] = torch.where(known.isnan(), velocity[cells], known)
        return velocity


def _interpolation(survey: Survey) -> Tensor:
    """Weight of each shot at each receiver, (shots, receivers): linear between shots, constant beyond the last."""
    order = np.argsort(survey.shot_columns)
    columns = np.array(survey.shot_columns)[order]
    rows = [np.interp(survey.receiver_columns, columns, order == shot) for shot in range(survey.shots)]
    return torch.tensor(np.array(rows), dtype=torch.float32)
