"""Models too large for one device: every device keeps a share of the weights, gradients and optimiser state."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

BLOCK = 100_000
"""Parameters from which a block of a network is gathered by itself, just before its turn and no longer."""


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2 over all devices, with whole checkpoints as any other run writes.

    The module shards its model in `configure_model`. Each device has its own share of a batch, as with ddp.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)

    def setup_environment(self) -> None:
        """Count the devices. Lightning calls this."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()


def shard(model: nn.Module, mesh: Any) -> None:
    """Distribute the weights of a model over devices (Zhao et al., 2023, arXiv:2304.11277; torch's FSDP2).

    Args:
        model: A `VelocityModel`; its blocks, then what is left of it.
        mesh: The devices, of one dimension.
    """
    for block in list(blocks_of(model)):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # The loss calls this method and not the model, and so would miss the hooks that bring the weights together.
    register_fsdp_forward_method(model, "answer")


def blocks_of(model: nn.Module) -> Iterator[nn.Module]:
    """The members of lists and sequences that have at least `BLOCK` parameters, inner ones first."""
    for child in model.children():
        yield from blocks_of(child)
        listed = isinstance(model, nn.Sequential | nn.ModuleList) and not isinstance(child, nn.ModuleList)
        if listed and sum(p.numel() for p in child.parameters()) >= BLOCK:
            yield child
