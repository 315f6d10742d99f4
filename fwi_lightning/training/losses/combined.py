"""Several losses as one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey
from fwi_lightning.training.losses.guarded import GuardedLoss


class CombinedLoss(nn.Module):
    """The sum of its terms, each of which keeps its own weight.

    Attributes:
        parts: What each term contributed, by name: to the last call, or to the last one in which it counted.
        skipped: How many samples each term that may leave some out has left out so far, in this process, by name.

    Args:
        **terms: Losses by name; a name is what `train/NAME` in the log says.

    Raises:
        UserError: If there is no term.
    """

    def __init__(self, **terms: nn.Module) -> None:
        super().__init__()
        if not terms:
            raise UserError("a combined loss needs at least one term: name one, as conf/loss/l1_pde.yaml does.")
        self.terms = nn.ModuleDict(terms)
        self.parts: dict[str, Tensor | float] = {}
        self.skipped: dict[str, Tensor | int] = {}

    def forward(self, prediction: Tensor, batch: Mapping[str, Tensor], survey: Survey) -> Tensor:
        """Velocity (batch, 1, depth, width) in m/s and its batch to a scalar."""
        values = {name: term(prediction, batch, survey) for name, term in self.terms.items()}
        guarded = {name: term for name, term in self.terms.items() if isinstance(term, GuardedLoss)}
        self.parts = {name: value.detach() for name, value in values.items()}
        self.parts |= {name: term.value for name, term in guarded.items()}
        self.skipped = {name: term.skipped for name, term in guarded.items()}
        return torch.stack(list(values.values())).sum()
