"""Tables and HTML pages made of figures: what a person opens after a run."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fwi_lightning.report.example import Example
    from fwi_lightning.report.prediction import PredictionReport, write_prediction_report
    from fwi_lightning.report.run import RunReport, RunSummary, write_run_report
    from fwi_lightning.report.tables import (
        family_html,
        family_table,
        read_metrics,
        write_csv,
        write_family_csv,
    )

_HOMES = {
    "Example": "example",
    "PredictionReport": "prediction",
    "RunReport": "run",
    "RunSummary": "run",
    "family_html": "tables",
    "family_table": "tables",
    "read_metrics": "tables",
    "write_csv": "tables",
    "write_family_csv": "tables",
    "write_prediction_report": "prediction",
    "write_run_report": "run",
}
"""Name -> the module that it is imported from when it is first asked for: a sweep's report needs no torch."""

__all__ = [
    "Example",
    "PredictionReport",
    "RunReport",
    "RunSummary",
    "family_html",
    "family_table",
    "read_metrics",
    "write_csv",
    "write_family_csv",
    "write_prediction_report",
    "write_run_report",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
