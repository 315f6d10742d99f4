"""Where the trials of a study are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from fwi_lightning.errors import UserError

BUSY = 60.0
"""Seconds that a process waits for an SQLite file which another one is writing."""


def open_storage(url: str) -> BaseStorage:
    """Open the storage of a study, making it if needed.

    Args:
        url: `sqlite:///FILE`, one machine; `journal:///FILE`, a log for many machines with a common file system;
            `postgresql://USER@HOST/DATABASE`, or another database of SQLAlchemy's. A fourth slash begins an absolute
            path.

    Raises:
        UserError: If it cannot be opened.
    """
    kind, separator, file = url.partition(":///")
    try:
        if separator and kind in ("sqlite", "journal"):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        if kind == "journal":
            return JournalStorage(JournalFileBackend(file, lock_obj=JournalFileOpenLock(file)))
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY}} if kind == "sqlite" else None)
    except ImportError as error:
        raise UserError(
            f"the storage {without_password(url)} needs a driver that is not installed: for PostgreSQL run "
            "`uv sync --extra postgres`."
        ) from error
    # SQLAlchemy and the drivers below it have an exception each.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the storage {without_password(url)} cannot be opened ({reason}).") from error


def without_password(url: str) -> str:
    """A URL that may be shown."""
    return re.sub(r"(://[^:/@]+):[^@]*@", r"\1:***@", url)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one process at a time run the sweep of a folder; the system frees the lock of a killed one.

    Raises:
        UserError: If another process is running it.
    """
    with (folder / ".lock").open("w") as file:
        with suppress(ImportError):  # no fcntl on Windows
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UserError(
                    f"the sweep of {folder} is running: wait for it, or choose another hydra.sweeper.study_name."
                ) from error
        yield
