"""Small networks on run-time features: predicted SSIM, family, and weights per sample or per cell."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fwi_lightning.inversion.ensemble.features import Features

HIDDEN = 48
"""Width of the networks on features."""

CHANNELS = 24
"""Width of the network on maps."""

PATIENCE = 6
"""Looks at the stopping part without a gain after which a training ends."""

LEAST_WEIGHT = 1e-3
"""Static weight from which a member can still be called upon by the meta-learner."""


class FeatureNet(nn.Module):
    """A perceptron on features that it standardises itself.

    Args:
        inputs: Columns.
        outputs: Numbers that it gives.
    """

    mean: Tensor
    deviation: Tensor
    keep: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for name, value in (("mean", 0.0), ("deviation", 1.0), ("keep", 1.0)):
            self.register_buffer(name, torch.full((inputs,), value))
        self.layers = nn.Sequential(
            nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Dropout(0.1), nn.Linear(HIDDEN, HIDDEN), nn.GELU()
        )
        self.last = nn.Linear(HIDDEN, outputs)
        # The answer before any training is zero: a gate then leaves the static weights as they are.
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def standardise(self, columns: Tensor, kept: Tensor) -> None:
        """Take mean and deviation from (..., inputs), and which columns to look at from (inputs,)."""
        flat = columns.reshape(-1, columns.shape[-1])
        self.mean.copy_(flat.mean(dim=0))
        self.deviation.copy_(flat.std(dim=0, correction=0).clamp_min(1e-6))
        self.keep.copy_(kept)

    def hidden(self, columns: Tensor) -> Tensor:
        """(..., inputs) to (..., HIDDEN)."""
        scaled = ((columns - self.mean) / self.deviation).clamp(-5, 5) * self.keep
        return self.layers(scaled)

    def forward(self, columns: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return self.last(self.hidden(columns))


def member_columns(features: Features, slots: Tensor, more: Sequence[Tensor] = ()) -> Tensor:
    """A row for each map and sample: its own features, the shared ones, further ones, and whose map it is.

    Args:
        features: The features.
        slots: (maps, slots): 1 in the slot of the member whose map it is.
        more: Further columns, each (maps, samples, columns).

    Returns:
        (maps, samples, columns).
    """
    maps, samples = features.own.shape[:2]
    shared = features.shared.expand(maps, -1, -1)
    return torch.cat([features.own, shared, *more, slots[:, None].expand(-1, samples, -1)], dim=2)


def sample_columns(features: Features) -> Tensor:
    """A row for each sample: the shared features and the members' own, averaged."""
    return torch.cat([features.shared, features.own.mean(dim=0)], dim=1)


def kept_columns(blocks: Sequence[str], without: Collection[str]) -> Tensor:
    """(columns,): 0 for columns of the blocks to leave out, 1 for others."""
    return torch.tensor([float(name not in without) for name in blocks])


class PixelGate(nn.Module):
    """Weights of each cell from the members' maps around it, by convolutions with a reach of 15 cells.

    Args:
        members: Members.
        context: Numbers known of each sample.
    """

    def __init__(self, members: int, context: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(members + 4, CHANNELS, 3, padding=1, padding_mode="replicate")
        self.context = FeatureNet(context, CHANNELS)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=2, dilation=2, padding_mode="replicate")
        self.third = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=4, dilation=4, padding_mode="replicate")
        self.last = nn.Conv2d(CHANNELS, members, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def forward(self, velocity: Tensor, context: Tensor, place: Tensor) -> Tensor:
        """Scores of each member in each cell.

        Args:
            velocity: (members, samples, depth, width) in m/s.
            context: (samples, numbers).
            place: (samples, 2, depth, width): depth and distance from the centre of each cell, 0..1.

        Returns:
            (samples, members, depth, width).
        """
        maps = velocity.transpose(0, 1)
        mean, spread = maps.mean(dim=1, keepdim=True), maps.std(dim=1, correction=0, keepdim=True)
        inputs = torch.cat([(maps - mean) / 300, spread / 300, (mean - 3000) / 1500, place], dim=1)
        hidden = functional.gelu(self.first(inputs) + self.context(context)[..., None, None])
        hidden = functional.gelu(self.second(hidden))
        hidden = functional.gelu(self.third(hidden))
        return self.last(hidden)


def cell_places(samples: int, depth: int, width: int) -> Tensor:
    """(samples, 2, depth, width): depth and distance from the centre line, 0..1."""
    down = torch.linspace(0, 1, depth)[:, None].expand(depth, width)
    aside = torch.linspace(-1, 1, width).abs()[None].expand(depth, width)
    return torch.stack([down, aside]).expand(samples, -1, -1, -1)


def train(
    module: nn.Module,
    step_loss: Callable[[torch.Generator], Tensor],
    stopping_loss: Callable[[], Tensor],
    steps: int,
    seed: int,
    rate: float = 3e-3,
    look: int = 20,
) -> int:
    """Train until the loss of samples set aside no longer falls, and keep the best state; the first one counts too.

    Args:
        module: What to train.
        step_loss: Loss of a training step; the generator draws its batch.
        stopping_loss: Loss of the samples set aside.
        steps: Steps at most.
        seed: Of batches and dropout.
        rate: Learning rate of AdamW. Default 0.003.
        look: Steps between looks at the stopping loss. Default 20.

    Returns:
        The step of the state that was kept; 0 if training made nothing better.
    """
    optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=0.02)
    generator = torch.Generator().manual_seed(seed)
    best, least, kept, patience = copy.deepcopy(module.state_dict()), _judge(module, stopping_loss), 0, PATIENCE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            step_loss(generator).backward()
            optimizer.step()
            if step % look == 0 or step == steps:
                loss = _judge(module, stopping_loss)
                patience = PATIENCE if loss < least else patience - 1
                if loss < least:
                    best, least, kept = copy.deepcopy(module.state_dict()), loss, step
                if not patience:
                    break
    module.load_state_dict(best)
    module.eval()
    return kept


@torch.no_grad()
def _judge(module: nn.Module, loss: Callable[[], Tensor]) -> float:
    module.eval()
    value = float(loss())
    module.train()
    return value
