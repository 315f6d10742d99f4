"""Where what was computed of a file is kept: in a hidden folder beside it, or elsewhere if that cannot be written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def kept_beside(
    file: Path,
    hidden: str,
    elsewhere: Path,
    facts: Sequence[Any],
    folder: str | None = None,
    content: Sequence[Any] | None = None,
) -> Path:
    """A name for what was computed of a file: other facts, or a file that was changed, have another name.

    Args:
        file: The file.
        hidden: Name of the folder beside it; scans for data pass over names that begin with a dot.
        elsewhere: Folder for files beside which nothing can be written.
        facts: What decides the result besides the file, as plain values.
        folder: A folder to use instead of both. Default: none.
        content: What stands for the content of the file. Default: its size and the time of its last change.

    Returns:
        The path of a .npy file, whether it is there or not.
    """
    beside = file.parent / hidden
    home = Path(folder) if folder else beside if _writable(beside) else elsewhere
    if content is None:
        status = file.stat()
        content = [status.st_size, status.st_mtime_ns]
    place = "" if home == beside else str(file.absolute())  # data may be moved with what lies beside it
    digest = hashlib.sha256(json.dumps([*facts, place, *content]).encode()).hexdigest()[:16]
    return home / f"{file.stem}-{digest}.npy"


def _writable(folder: Path) -> bool:
    """Whether a folder can be written, or made."""
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    return os.access(there, os.W_OK)
