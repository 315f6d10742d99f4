"""The log of a run: metrics.csv in its folder, continued when the run is."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment


class _ContinuingWriter(ExperimentWriter):
    """Lightning's writer deletes the file that it finds; this one goes on with it."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.is_file():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


class RunLogger(CSVLogger):
    """Writes `folder/metrics.csv`, a row per logged step.

    Args:
        folder: The run folder.
        flush_logs_every_n_steps: Rows held back before they are written. Default 10.
    """

    def __init__(self, folder: str, flush_logs_every_n_steps: int = 10) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=flush_logs_every_n_steps)

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        """The writer, made when first needed."""
        if not isinstance(self._experiment, _ContinuingWriter):
            self._experiment = _ContinuingWriter(log_dir=self.log_dir)
        return self._experiment


def forget_later_steps(metrics: Path, step: int) -> None:
    """Drop the rows of a log that a resumed run will write again.

    Args:
        metrics: The file metrics.csv; nothing happens if it is missing.
        step: Optimiser steps that the checkpoint had done: rows of this step and later ones go.
    """
    if not metrics.is_file():
        return
    with metrics.open(newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if int(row["step"]) < step]
        names = list(reader.fieldnames or [])
    temporary = metrics.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    temporary.replace(metrics)
