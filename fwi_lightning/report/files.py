"""Files that are whole or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import contextlib
from pathlib import Path

from fwi_lightning.errors import UserError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole, making its folder if needed; an older file of that name stays until then.

    Args:
        path: Where to.
        content: What.

    Raises:
        UserError: If the folder or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from error
