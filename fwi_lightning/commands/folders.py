"""Folders that commands write to."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fwi_lightning.errors import UserError


def writable_folder(path: str | Path) -> Path:
    """Make a folder if it is missing, and try whether it can be written, before any work is done.

    Args:
        path: The folder.

    Returns:
        Its path.

    Raises:
        UserError: If it cannot be made or written.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror}): choose another folder for the output."
        ) from error
    return folder
