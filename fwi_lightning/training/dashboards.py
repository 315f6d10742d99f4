"""Weights & Biases without an account, and a run that goes on as the same run there."""

from __future__ import annotations

import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from fwi_lightning.errors import UserError

MODES = ("offline", "online", "disabled")
SERVER = ("api.wandb.ai", 443)
PATIENCE = 2.0
"""Seconds that the server has to answer."""


class RunWandb(WandbLogger):
    """Lightning's logger for Weights & Biases, tied to a run folder.

    What is logged lies in `folder/wandb`; `wandb sync folder/wandb/offline-run-*` sends it. The id in
    `folder/wandb.id` makes a resumed run go on as the same run.

    Args:
        folder: The run folder.
        project: Project of the dashboard. Default "fwi-lightning".
        mode: "offline", which needs neither account nor network; "online", which becomes "offline" with a warning
            where the server does not answer; or "disabled". Default "offline".
        name: Name of the run. Default: that of its folder.
        group: Runs to be shown together, such as the folds of one training. Default: none.

    Raises:
        UserError: If the mode is none of these.
    """

    def __init__(
        self,
        folder: str,
        project: str = "fwi-lightning",
        mode: str = "offline",
        name: str | None = None,
        group: str | None = None,
    ) -> None:
        if mode not in MODES:
            raise UserError(f"logger.wandb.mode must be {', '.join(MODES[:-1])} or {MODES[-1]}, got {mode!r}.")
        if mode == "online" and not answers(SERVER):
            print(f"warning: {SERVER[0]} does not answer: Weights & Biases goes on offline.", file=sys.stderr)
            mode = "offline"
        settings: dict[str, Any] = {"mode": mode, "resume": "allow"} | ({"group": group} if group else {})
        super().__init__(
            name=name or Path(folder).name,
            save_dir=folder,
            project=project,
            id=run_id(Path(folder)),
            offline=mode == "offline",
            **settings,
        )


def answers(server: tuple[str, int]) -> bool:
    """Whether a server takes connections."""
    try:
        socket.create_connection(server, timeout=PATIENCE).close()
    except OSError:
        return False
    return True


def run_id(folder: Path) -> str:
    """The id of a run in the dashboard, drawn at first and kept in its folder."""
    path = folder / "wandb.id"
    if not path.is_file():
        path.write_text(secrets.token_hex(4) + "\n")
    return path.read_text().strip()
