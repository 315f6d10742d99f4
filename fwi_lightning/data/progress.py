"""How far a long simulation is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 20.0
"""Time between two lines where there is no terminal."""


class Progress:
    """Counts samples and shows the count, the rate and the time left.

    Args:
        title: What is being done.
        done: Samples that were done before; they do not count towards the rate.
        total: Samples in all.
        on_progress: Called with samples done and samples in all instead of showing them. Default: show them.
    """

    def __init__(
        self, title: str, done: int, total: int, on_progress: Callable[[int, int], None] | None = None
    ) -> None:
        self.title, self.done, self.total = title, done, total
        self.on_progress = on_progress
        self._before = done
        self._begun = self._shown = time.monotonic()
        console = Console(stderr=True)
        self._bar: Bar | None = None
        if on_progress is None and console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(TextColumn("{task.description}"), *columns, console=console)
            self._task = self._bar.add_task(title, total=total, completed=done, rate="")

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        elif self.on_progress is None:
            print(f"{self.title}: {self.total - self.done} samples to go", flush=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        elif self.on_progress is None:
            self._print()

    def advance(self, count: int) -> None:
        """Count samples that were just finished."""
        self.done += count
        if self.on_progress is not None:
            self.on_progress(self.done, self.total)
        elif self._bar:
            self._bar.update(self._task, completed=self.done, rate=self._pace())
        elif time.monotonic() - self._shown > LINE_SECONDS:
            self._print()

    def note(self, sentence: str) -> None:
        """Say what has just been done within a sample; on a terminal, beside the bar."""
        if self._bar:
            self._bar.update(self._task, description=f"{self.title} ({sentence})")
        elif self.on_progress is None and time.monotonic() - self._shown > LINE_SECONDS:
            self._shown = time.monotonic()
            print(f"{self.title}: {sentence}", flush=True)

    def _rate(self) -> float:
        return (self.done - self._before) / max(time.monotonic() - self._begun, 1e-9)

    def _pace(self) -> str:
        """The rate in words: seconds a sample where that is the larger number."""
        rate = self._rate()
        return f"{rate:.1f} samples/s" if rate >= 1 else f"{1 / rate:.1f} s a sample"

    def _print(self) -> None:
        self._shown = time.monotonic()
        line = f"{self.title}: {self.done}/{self.total} samples"
        if self.done > self._before:
            line += f", {self._pace()}, {(self.total - self.done) / self._rate():.0f} s left"
        print(line, flush=True)
