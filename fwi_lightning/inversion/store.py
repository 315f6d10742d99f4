"""Batches on their way through the chain, kept on disk: a second start goes on where the first was stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fwi_lightning.errors import UserError
from fwi_lightning.inversion.state import State
from fwi_lightning.models import Answer

FACTS = "settings.json"


class Store:
    """A folder with a file for each batch, and with the facts that they depend on.

    Args:
        folder: The folder; made when the first thing is kept.
        facts: What the states depend on, plain values: settings, model, input. A folder of other facts that holds
            unfinished work is not touched.
        fresh: Whether to throw away what is there. Default False.

    Raises:
        UserError: If the folder holds unfinished work of other facts.
    """

    def __init__(self, folder: Path, facts: Mapping[str, Any], fresh: bool = False) -> None:
        self.folder, self.facts = folder, dict(facts)
        found = self._read()
        if found.get("facts") == self.facts and not fresh:
            self.finished = bool(found["finished"])
            return
        if found and not found["finished"] and not fresh:
            changed = _difference(found["facts"], self.facts)
            raise UserError(
                f"{folder.parent} holds unfinished work with other settings ({changed}): give the same settings to go "
                "on with it, fresh=true to throw it away, or another output."
            )
        shutil.rmtree(folder, ignore_errors=True)
        self.finished = False

    def save(self, number: int, state: State) -> None:
        """Keep a batch."""
        if not (self.folder / FACTS).is_file():
            self._write()
        path = self._path(number)
        temporary = path.with_suffix(".part")
        content = {
            "velocity": state.velocity.contiguous(),
            "misfit": state.known_misfit,
            "answer": None if state.answer is None else list(state.answer),
            "columns": state.columns,
            "maps": state.maps,
            "extras": state.extras,
            "done": state.done,
            "rows": state.rows,
        }
        torch.save(content, temporary)
        temporary.replace(path)

    def has(self, number: int) -> bool:
        """Whether a batch is kept."""
        return self._path(number).is_file()

    def load(self, number: int, state: State) -> State:
        """Fill a state, of which only what is not kept is set, with what was kept of it.

        Raises:
            UserError: If the file cannot be read.
        """
        path = self._path(number)
        try:
            content = torch.load(path, weights_only=True)
        except Exception as error:  # torch raises whatever its reader stumbles over
            raise UserError(f"{path} cannot be read: start with fresh=true.") from error
        state.improve(content["velocity"], content["misfit"])
        state.answer = None if content["answer"] is None else Answer(*content["answer"])
        for name in ("columns", "maps", "extras", "done", "rows"):
            setattr(state, name, content[name])
        return state

    def finish(self) -> None:
        """Everything is done: note it, and remove the batches."""
        self.finished = True
        self._write()
        for path in self.folder.glob("batch_*"):
            path.unlink()

    def _path(self, number: int) -> Path:
        return self.folder / f"batch_{number:06d}.pt"

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / FACTS).read_text())
            return found if {"facts", "finished"} <= set(found) else {}
        except (OSError, ValueError):
            return {}

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f"{FACTS}.part"
        temporary.write_text(json.dumps({"facts": self.facts, "finished": self.finished}, indent=1))
        temporary.replace(self.folder / FACTS)


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Names of the facts that differ."""
    keys = dict.fromkeys([*found, *wanted])
    return ", ".join(key for key in keys if found.get(key) != wanted.get(key))
