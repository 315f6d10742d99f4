"""What of a folder is finished, written down as JSON by one process or by many on several machines."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fwi_lightning.data.locks import locked
from fwi_lightning.data.whole import write_whole
from fwi_lightning.errors import UserError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Share:
    """The share of a piece of work that one process does: every `parts`-th thing, beginning with number `part`.

    Attributes:
        part: Which share, from 0. Default 0.
        parts: Number of shares. Default 1: all of it.

    Raises:
        UserError: If there is no such share.
    """

    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not isinstance(self.parts, int) or self.parts < 1:
            raise UserError(f"parts must be a whole number of at least 1, got {self.parts!r}.")
        if not isinstance(self.part, int) or not 0 <= self.part < self.parts:
            raise UserError(f"part must be 0 to {self.parts - 1} with parts={self.parts}, got {self.part!r}.")

    def of(self, things: Sequence[Any]) -> Sequence[Any]:
        """The things that this share has."""
        return things[self.part :: self.parts]

    def missing(self, names: Sequence[str], finished: dict[str, Any]) -> str:
        """Which of all things are not finished, in words for people; empty if none is."""
        left = [place for place, name in enumerate(names) if name not in finished]
        if not left:
            return ""
        if self.parts == 1:
            return _some([names[place] for place in left])
        return f"part {_some([str(part) for part in sorted({place % self.parts for place in left})])} of {self.parts}"

    @contextmanager
    def locked(self, folder: Path) -> Iterator[None]:
        """Let one process at a time do this share in a folder, and none of the shares beside one that does all."""
        with ExitStack() as stack:
            stack.enter_context(locked(folder / ".lock", shared=self.parts > 1))
            if self.parts > 1:
                stack.enter_context(locked(folder / f".lock-{self.part}-of-{self.parts}"))
            yield


class Ledger:
    """The settings that a folder is written with, and an entry for each file that is finished.

    They lie in manifest.json. Each of several shares has a hidden manifest of its own, so that no two processes ever
    write the same file; reading takes them together.

    Args:
        folder: The folder.
        settings: All that decides what is written, as plain values. A folder with others is refused.
        content: What the folder holds, as in "a simulated survey".
        pattern: Of the files that are written: where there are some and no manifest, they are somebody else's.
        share: The share of this process. Default: all.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], content: str, pattern: str, share: Share | None = None
    ) -> None:
        share = share or Share()
        self.folder, self.settings, self.content, self.pattern = folder, settings, content, pattern
        self.path = folder / (MANIFEST if share.parts == 1 else f".manifest-{share.part}-of-{share.parts}.json")

    def begin(self) -> None:
        """Write the manifest, if it is not there: from now on the folder belongs to these settings.

        Raises:
            UserError: If the folder has other settings, or files of another origin.
            OSError: If it cannot be written.
        """
        # Looked for first: another share writes its manifest before its first file.
        foreign = next(self.folder.rglob(self.pattern), None)
        if foreign is not None and not self._paths():
            raise UserError(
                f"{self.folder} holds files that are not of {self.content}, such as {foreign}: choose another folder."
            )
        entries = self.finished()
        if not self.path.exists():
            self._write(self.path, entries if self.path.name == MANIFEST else {})

    def finished(self) -> dict[str, Any]:
        """The entries of all finished files by name; none where there is no manifest.

        Raises:
            UserError: If a manifest is none, or has other settings.
        """
        entries: dict[str, Any] = {}
        for path in self._paths():
            entries |= self._read(path)
        return entries

    def record(self, name: str, entry: dict[str, Any]) -> None:
        """Write down that a file is finished.

        Raises:
            OSError: If the manifest cannot be written.
        """
        self._write(self.path, self._read(self.path) | {name: entry})

    def forget(self, names: Sequence[str]) -> None:
        """Take files off all manifests, so that they are written again.

        Raises:
            OSError: If a manifest cannot be written.
        """
        for path in self._paths():
            entries = self._read(path)
            if entries.keys() & set(names):
                self._write(path, {name: entry for name, entry in entries.items() if name not in names})

    def join(self) -> None:
        """Write manifest.json with the entries of all shares.

        Raises:
            OSError: If it cannot be written.
        """
        self._write(self.folder / MANIFEST, self.finished())

    def _paths(self) -> list[Path]:
        """The manifests that there are; that of the whole last, as it is written last."""
        return [*sorted(self.folder.glob(".manifest-*.json")), *self.folder.glob(MANIFEST)]

    def _write(self, path: Path, entries: dict[str, Any]) -> None:
        version = importlib.metadata.version("fwi-lightning")
        content = {"package_version": version, "settings": self.settings, "parts": entries}
        write_whole(path, json.dumps(content, indent=1) + "\n")

    def _read(self, path: Path) -> dict[str, Any]:
        """The entries of one manifest, if it has these settings."""
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            before, entries = manifest["settings"], dict(manifest["parts"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} is no manifest of {self.content}: choose another folder.") from None
        for name in {**self.settings, **before}:  # a setting that one of the two lacks is a difference too
            now = self.settings.get(name)
            if before.get(name) != now:
                difference = describe_difference(name, before.get(name), now)
                raise UserError(f"{self.folder} holds {self.content} {difference}: choose another folder.")
        return entries


def describe_difference(name: str, before: Any, now: Any) -> str:
    """The difference between two values of a setting, in words; of a survey, its first one."""
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(key for key in {**now, **before} if before.get(key) != now.get(key))
        before, now = before.get(name), now.get(name)
    return f"with {name}={_short(before)}, not {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _some(words: list[str], most: int = 12) -> str:
    """A list for people, cut where it is long."""
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest} more" if rest > 0 else "")
