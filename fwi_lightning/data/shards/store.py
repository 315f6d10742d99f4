"""Shards as files to read from: where they lie, or fetched from a URL into a folder that keeps the latest."""

from __future__ import annotations

import http.client
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from fwi_lightning.data.locks import locked
from fwi_lightning.data.shards.index import INDEX, Index, Shard, parse_index
from fwi_lightning.data.whole import WholeFile
from fwi_lightning.errors import UserError

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds without a byte after which a server counts as gone."""

CHUNK = 1 << 20
OPEN_FILES = 64


class BrokenShardError(UserError):
    """A shard that could not be read, after all attempts; the message says which and why."""


class TroubleError(Exception):
    """What is wrong with a shard at one attempt."""


class ShardStore:
    """The shards of a folder or a URL.

    Each process opens its own files: a pickled store arrives without any. Nothing of a shard stays in memory.

    Attributes:
        retries: Further attempts that were made so far, in this process.
        broken: What is wrong with the shards that are not tried again, by number.
        reported: Those of them that the user was told of.

    Args:
        root: Folder of the index, or its http(s) URL.
        shards: The shards.
        cache: Folder for shards from a URL. They have their checksum for a name, so that it may serve many data sets.
        cache_gb: What may lie there at most, in GB; the shards that were not used for longest go first.
        attempts: How often a shard is tried before it counts as broken.
        wait: Seconds before the second attempt; each further one waits twice as long.
    """

    def __init__(
        self, root: str, shards: Sequence[Shard], cache: str, cache_gb: float, attempts: int = 4, wait: float = 1.0
    ) -> None:
        self.root, self.shards = root, list(shards)
        self.remote = is_url(root)
        self.cache, self.cache_bytes = Path(cache), cache_gb * 1e9
        self.attempts, self.wait = attempts, wait
        self.retries = 0
        self.broken: dict[int, str] = {}
        self.reported: set[int] = set()
        self._start()

    def _start(self) -> None:
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._ahead: ThreadPoolExecutor | None = None
        self._asked: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_files", "_ahead", "_asked")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def name(self, shard: int) -> str:
        """Path or URL of a shard."""
        return f"{self.root}/{self.shards[shard].name}"

    def path(self, shard: int) -> Path:
        """Where a shard lies on this machine, or would once it is fetched."""
        return self._cached(shard) if self.remote else Path(self.name(shard))

    def read(self, shard: int, start: int, length: int) -> bytearray:
        """Bytes of a shard.

        Args:
            shard: Number of the shard.
            start: First byte.
            length: Number of bytes.

        Raises:
            BrokenShardError: If it cannot be read, now or at an earlier call.
            UserError: If the cache cannot be written.
        """
        reason = ""
        for attempt in range(1, self.attempts + 1):
            if shard in self.broken:
                raise BrokenShardError(self.broken[shard])
            try:
                return self._read(shard, start, length)
            except (TroubleError, OSError) as error:
                reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
                self._close(shard)
            if attempt < self.attempts:
                self.retries += 1
                pause = self.wait * 2 ** (attempt - 1)
                log.warning(
                    "%s: %s; attempt %d of %d, the next in %g s (retry number %d of this process).",
                    self.name(shard),
                    reason,
                    attempt,
                    self.attempts,
                    pause,
                    self.retries,
                )
                time.sleep(pause)
        self.mark_broken(shard, f"{reason}, in {self.attempts} attempts")
        raise BrokenShardError(self.broken[shard])

    def mark_broken(self, shard: int, reason: str) -> None:
        """Never try a shard again."""
        self.broken[shard] = (
            f"{self.name(shard)} cannot be read ({reason}): copy it again, or write it again with "
            "`python -m fwi_lightning shard ... check=true` and then without check."
        )

    def look(self, shards: Sequence[int]) -> list[str]:
        """Mark local shards that are missing or cut short as broken, without reading them.

        Returns:
            A sentence for each.
        """
        if not self.remote:
            for shard in shards:
                try:
                    self._check_size(shard, Path(self.name(shard)).stat().st_size)
                except (TroubleError, OSError) as error:
                    self.mark_broken(shard, getattr(error, "strerror", None) or str(error))
        return [self.broken[shard] for shard in shards if shard in self.broken]

    def read_ahead(self, shards: Sequence[int]) -> None:
        """Fetch shards in the background, in this order; those that another process is fetching are left to it."""
        if not self.remote:
            return
        if self._ahead is None:
            self._ahead = ThreadPoolExecutor(max_workers=2, thread_name_prefix="shards")
        for shard in shards:
            if shard not in self._asked and shard not in self.broken:
                self._asked.add(shard)
                self._ahead.submit(self._fetch_quietly, shard)

    def _fetch_quietly(self, shard: int) -> None:
        # What goes wrong here goes wrong again, and is reported, when the shard is needed.
        with suppress(TroubleError, OSError, UserError):
            self._fetch(shard, wait=False)
        self._asked.discard(shard)

    def _read(self, shard: int, start: int, length: int) -> bytearray:
        file = self._files.get(shard)
        if file is None:
            path = self._fetch(shard) if self.remote else self.path(shard)
            file = path.open("rb", buffering=0)
            self._files[shard] = file
            self._check_size(shard, os.fstat(file.fileno()).st_size)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(shard)
        data = bytearray(length)
        view, got = memoryview(data), 0
        file.seek(start)
        while got < length:
            count = file.readinto(view[got:])  # type: ignore[attr-defined]
            if not count:
                raise TroubleError("it is cut short")
            got += count
        return data

    def _close(self, shard: int) -> None:
        file = self._files.pop(shard, None)
        if file is not None:
            file.close()
        if self.remote:  # what was fetched may be what is damaged
            self._cached(shard).unlink(missing_ok=True)

    def _cached(self, shard: int) -> Path:
        return self.cache / f"{self.shards[shard].sha256}.tar"

    def _check_size(self, shard: int, size: int) -> None:
        expected = self.shards[shard].size
        if size != expected:
            kind = "it is cut short" if size < expected else "it is too long"
            raise TroubleError(f"{kind}: {size:,} bytes instead of {expected:,}")

    def _fetch(self, shard: int, wait: bool = True) -> Path:
        """Where a shard lies in the cache, after downloading it if need be.

        Args:
            shard: Its number.
            wait: Whether to wait for another process that is downloading it.
        """
        path = self._cached(shard)
        if not path.is_file():
            try:
                self.cache.mkdir(parents=True, exist_ok=True)
                with locked(self.cache / f".{path.name}.lock", wait=wait, announce=False) as held:
                    if held and not path.is_file():
                        self._download(shard, path)
                        self._make_room(path)
            except OSError as error:
                raise UserError(
                    f"{self.cache} cannot be written ({error.strerror or error}): set data.cache to a folder you may "
                    "write to, or data.cache_gb to the space that its disk has."
                ) from None
        with suppress(OSError):
            os.utime(path)
        return path

    def _download(self, shard: int, path: Path) -> None:
        file = WholeFile(path, f".{os.getpid()}.{threading.get_ident()}")
        try:
            with open_url(self.name(shard)) as stream:
                while data := _receive(stream):
                    file.write(data)
            self._check_size(shard, file.file.tell())
            if file.finish() != self.shards[shard].sha256:
                raise TroubleError("its checksum is not that of the index")
            file.publish()
        except BaseException:
            file.discard()
            raise

    def _make_room(self, kept: Path) -> None:
        """Remove the shards that were not used for longest. Whoever has one open can go on reading it."""
        found = []
        for path in self.cache.glob("*.tar"):
            with suppress(FileNotFoundError):  # another process makes room too
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.cache_bytes:
                break
            if path != kept:
                path.unlink(missing_ok=True)
                total -= size


def is_url(root: str) -> bool:
    """Whether data lies behind a URL."""
    return root.startswith(("http://", "https://"))


def read_index(root: str, attempts: int = 4, wait: float = 1.0) -> tuple[str, Index]:
    """The index of shards.

    Args:
        root: Folder, path of an index.json, or the http(s) URL of either.
        attempts: How often a URL is tried. Default 4.
        wait: Seconds before the second attempt, twice as long before each further one. Default 1.

    Returns:
        Folder or URL of the index, and the index.

    Raises:
        UserError: If there is none, or it is of another version.
    """
    folder = root.removesuffix("/").removesuffix(f"/{INDEX}")
    where = f"{folder}/{INDEX}"
    reason = ""
    for attempt in range(1, attempts + 1):
        try:
            if not is_url(root):
                return folder, parse_index(Path(where).read_bytes(), where)
            with open_url(where) as stream:
                return folder, parse_index(b"".join(iter(lambda: _receive(stream), b"")), where)
        except (TroubleError, OSError) as error:
            reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                break
            if attempt < attempts:
                time.sleep(wait * 2 ** (attempt - 1))
    raise UserError(
        f"{where} cannot be read ({reason}): set data.root to the folder or URL of shards that are complete; "
        "`python -m fwi_lightning shard` writes the index last."
    )


def open_url(url: str) -> http.client.HTTPResponse:
    """Ask a server for a file.

    Raises:
        TroubleError: If it does not give it.
    """
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(url, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        raise TroubleError(f"the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TroubleError(f"no answer: {getattr(error, 'reason', None) or error or type(error).__name__}") from None
    return response


def _receive(stream: http.client.HTTPResponse) -> bytes:
    try:
        return stream.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise TroubleError(f"the connection broke off: {error or type(error).__name__}") from None
