"""The one number that a sweep compares runs by."""

from __future__ import annotations

import math
from pathlib import Path

from omegaconf import DictConfig

from fwi_lightning.report.tables import read_metrics


def best_score(config: DictConfig, folder: Path) -> float | None:
    """The best logged value of `sweep.metric`, by `sweep.direction`; without a sweep the lowest `val/mae`, m/s.

    Args:
        config: conf/train.yaml or one that extends it.
        folder: The run folder, after the training.

    Returns:
        The value; None if none was logged.
    """
    wanted = config.get("sweep") or {"metric": "val/mae", "direction": "minimize"}
    values = [row.get(wanted["metric"], math.nan) for row in read_metrics(folder / "metrics.csv")]
    best = min if wanted["direction"] == "minimize" else max
    return best(filter(math.isfinite, values), default=None)
