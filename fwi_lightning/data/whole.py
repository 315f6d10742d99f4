"""Files that are there whole or not at all."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path


class WholeFile:
    """A file under a temporary name that gets its own when it is whole.

    Args:
        path: The file; its folder is made if missing.
        label: Word in the temporary name, for writers of the same file at the same time. Default: none.

    Raises:
        OSError: If the file cannot be made.
    """

    def __init__(self, path: Path, label: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.temporary = temporary_name(path, label)
        self.sum = hashlib.sha256()
        # Plain writes, not a memory map: a full disk then raises an error instead of killing the process.
        self.file = self.temporary.open("wb")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write the next bytes."""
        self.sum.update(data)
        self.file.write(data)

    def finish(self) -> str:
        """Bring the file to the disk; returns its SHA-256 as text."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        return self.sum.hexdigest()

    def publish(self) -> None:
        """Give the file its own name."""
        self.temporary.replace(self.path)

    def discard(self) -> None:
        """Remove what was written so far."""
        with suppress(OSError):  # on a full disk, closing fails as writing did
            self.file.close()
        self.temporary.unlink(missing_ok=True)


def temporary_name(path: Path, label: str = "") -> Path:
    """The hidden name that a file has until it is whole."""
    return path.with_name(f".{path.name}{label}.part")


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all; several processes may write the same at once.

    Raises:
        OSError: If it cannot be written.
    """
    file = WholeFile(path, f".{os.getpid()}")
    try:
        file.write(text.encode())
        file.finish()
        file.publish()
    except BaseException:
        file.discard()
        raise
