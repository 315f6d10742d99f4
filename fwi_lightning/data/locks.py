"""One process at a time: locks that the system frees when their process ends, however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path, shared: bool = False, wait: bool = True, announce: bool = True) -> Iterator[bool]:
    """Hold a lock while the body runs.

    Args:
        file: The file that stands for it, usually ".lock" in the folder to be written; made if missing.
        shared: Whether others may hold it too that also share it. Default False.
        wait: Whether to wait for another process. Default True.
        announce: Whether to say so. Default True.

    Yields:
        Whether the lock is held: always with `wait`.

    Raises:
        OSError: If the file cannot be made, or its file system has no locks.
    """
    with file.open("a") as stream:
        try:
            import fcntl
        except ImportError:  # Windows
            yield True
            return
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        held = True
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            held = wait
            if wait:
                if announce:
                    print(f"waiting for another process that is writing {file.parent}", flush=True)
                fcntl.flock(stream, kind)
        yield held
