"""Tables and HTML pages made of figures: what a person opens after a run."""

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
