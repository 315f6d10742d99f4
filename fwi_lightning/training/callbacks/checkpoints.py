"""Checkpoints of a run folder that may be moved before the run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Lightning's ModelCheckpoint, which forgets the best score of a folder that was moved.

    The next checkpoint would then count as the best, however bad. Takes the same arguments.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state, with its paths where the folder lies now. Lightning calls this."""
        before, now = str(state_dict["dirpath"]), str(self.dirpath)
        super().load_state_dict(_moved(state_dict, before, now))


def _moved(value: Any, before: str, now: str) -> Any:
    """The same with every path inside one folder replaced by that inside another."""
    if isinstance(value, dict):
        return {_moved(key, before, now): _moved(one, before, now) for key, one in value.items()}
    if isinstance(value, str) and Path(value).is_relative_to(before):
        return str(Path(now) / Path(value).relative_to(before))
    return value
