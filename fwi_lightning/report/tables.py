"""Tables of scores: in the terminal, in HTML, and as CSV files."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rich.box
import rich.table
import rich.text
from markupsafe import Markup

from fwi_lightning.report.files import write_bytes

Rows = Mapping[str, Mapping[str, float]]
"""Name of a family -> samples (how many), mae, rmse (m/s), ssim, boundary_iou; "all" is the row over all."""

OVERALL = "all"
"""Name of the row over all families."""

FAMILY_HEADINGS = {
    "family": "family",
    "samples": "samples",
    "mae": "MAE (m/s)",
    "rmse": "RMSE (m/s)",
    "ssim": "SSIM",
    "boundary_iou": "boundary IoU",
    "mean_map_mae": "mean map MAE (m/s)",
    "mae_ratio": "MAE / mean map",
}
"""Columns of per_family.csv and what they are called in tables."""

HEADINGS = FAMILY_HEADINGS | {
    "expected_mae": "expected MAE (m/s)",
    "expected_ssim": "expected SSIM",
    "mean_change": "mean change of misfit",
    "improved": "samples with less misfit",
    "seconds_a_sample": "s a sample",
}
"""What columns are called in any table, where that is not their name."""

_FORMATS = {
    "samples": "{:,.0f}",
    "mae": "{:.1f}",
    "rmse": "{:.1f}",
    "ssim": "{:.3f}",
    "boundary_iou": "{:.3f}",
    "mean_map_mae": "{:.1f}",
    "mae_ratio": "{:.2f}",
    "mae_spread": "{:.1f}",
    "rmse_spread": "{:.1f}",
    "ssim_spread": "{:.3f}",
    "boundary_iou_spread": "{:.3f}",
    "misfit": "{:.3g}",
    "median_misfit": "{:.3g}",
    "mean_change": "{:+.0f} %",
    "improved": "{:.0f} %",
    "seconds_a_sample": "{:.2g}",
    "expected_mae": "{:.1f}",
    "expected_ssim": "{:.3f}",
    "family_probability": "{:.2f}",
    "inconsistency": "{:.2f}",
}


@dataclass(frozen=True)
class Table:
    """Text in rows and columns, ready to show anywhere.

    Attributes:
        headings: One per column.
        rows: One text per column each.
        align: A letter per column, "l" flush left for text, "r" flush right for numbers, "w" for sentences, which wrap.
        total: Whether the last row sums up the others. Default False.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    align: str
    total: bool = False

    def to_rich(self, title: str | None = None) -> rich.table.Table:
        """The table for the terminal."""
        table = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE_HEAD, collapse_padding=True)
        for heading, side in zip(self.headings, self.align, strict=True):
            # headings may wrap between words, so that the scores fit a terminal of 80 columns
            least = max(map(len, heading.split()), default=0)
            table.add_column(heading, justify="right" if side == "r" else "left", no_wrap=side == "l", min_width=least)
        for number, row in enumerate(self.rows):
            last = self.total and number == len(self.rows) - 1
            if last:
                table.add_section()
            # Text, not markup: a file may be called "[red]"
            table.add_row(*map(rich.text.Text, row), style="bold" if last else None)
        return table

    def to_html(self) -> Markup:
        """The table as HTML, everything escaped."""
        kinds = [{"l": "text", "r": "number", "w": "text sentence"}[side] for side in self.align]

        def line(cells: Sequence[str], tag: str) -> Markup:
            return Markup().join(
                Markup('<{0} class="{1}">{2}</{0}>').format(tag, kind, cell)
                for kind, cell in zip(kinds, cells, strict=True)
            )

        body = Markup("\n").join(
            Markup("<tr{}>{}</tr>").format(
                Markup(' class="total"') if self.total and number == len(self.rows) - 1 else "",
                line(row, "td"),
            )
            for number, row in enumerate(self.rows)
        )
        head = line(self.headings, "th")
        return Markup("<table><thead><tr>{}</tr></thead>\n<tbody>{}</tbody></table>").format(head, body)


def cell(name: str, value: Any) -> str:
    """How a value of the column `name` is shown: numbers rounded to what matters, nothing as a dash.

    Args:
        name: Name of the column.
        value: Text, number, list of texts, or None.
    """
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return _FORMATS.get(name, "{}").format(value)


def scores_of(rows: Rows, baseline_rows: Rows | None = None) -> list[dict[str, Any]]:
    """One dict per family with the columns of per_family.csv, "all" last.

    Args:
        rows: Scores per family and overall.
        baseline_rows: The same of the mean map. Default None: without the last two columns.
    """
    names = [name for name in rows if name != OVERALL] + [OVERALL] * (OVERALL in rows)
    table = []
    for name in names:
        line: dict[str, Any] = {"family": name, **rows[name]}
        if baseline_rows is not None:
            baseline = baseline_rows.get(name, {}).get("mae")
            line["mean_map_mae"] = baseline
            line["mae_ratio"] = rows[name]["mae"] / baseline if baseline else None
        table.append(line)
    return table


def family_cells(rows: Rows, baseline_rows: Rows | None = None) -> Table:
    """The table per family as text.

    Args:
        rows: Scores per family and overall.
        baseline_rows: The same of the mean map. Default None.
    """
    keys = [key for key in FAMILY_HEADINGS if baseline_rows is not None or not key.startswith(("mean_", "mae_"))]
    lines = scores_of(rows, baseline_rows)
    return Table(
        headings=tuple(FAMILY_HEADINGS[key] for key in keys),
        rows=tuple(tuple(cell(key, line.get(key)) for key in keys) for line in lines),
        align="l" + "r" * (len(keys) - 1),
        total=OVERALL in rows,
    )


def family_table(rows: Rows, baseline_rows: Rows | None = None) -> rich.table.Table:
    """The scores per family for the terminal.

    Args:
        rows: Name of a family -> samples, mae (m/s), rmse (m/s), ssim, boundary_iou; "all" is the last row.
        baseline_rows: The same of "always predict the mean of the training maps"; only mae is used. Default
            None: two columns fewer.

    Returns:
        A table for `rich.print`.
    """
    return family_cells(rows, baseline_rows).to_rich()


def family_html(rows: Rows, baseline_rows: Rows | None = None) -> str:
    """The same table as an HTML element; arguments as `family_table`."""
    return str(family_cells(rows, baseline_rows).to_html())


def records_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Dicts as a table, a column per key in the order of first appearance, flush right if it holds numbers.

    Args:
        records: Rows.
    """
    keys = list(dict.fromkeys(key for record in records for key in record))
    numbers = {key for record in records for key, value in record.items() if isinstance(value, int | float)}
    return Table(
        headings=tuple(HEADINGS.get(key, key.replace("_", " ")) for key in keys),
        rows=tuple(tuple(cell(key, record.get(key)) for key in keys) for record in records),
        align="".join("r" if key in numbers else "l" for key in keys),
    )


def write_csv(path: Path, records: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Write dicts as CSV, for per_sample.csv and its like; numbers keep every digit.

    Args:
        path: Where to.
        records: Rows; the columns are all keys in the order of first appearance. Missing or None is a blank.
        columns: Columns that come first, and are there without any row too. Default none.

    Raises:
        UserError: If the file cannot be written.
    """
    lines = list(records)
    keys = list(dict.fromkeys([*columns, *(key for record in lines for key in record)]))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_bytes(path, buffer.getvalue().encode())


def write_family_csv(path: Path, rows: Rows, baseline_rows: Rows | None = None) -> None:
    """Write per_family.csv, the numbers of `family_table` with every digit.

    Args:
        path: Where to.
        rows: As `family_table`.
        baseline_rows: As `family_table`. Default None.

    Raises:
        UserError: If the file cannot be written.
    """
    write_csv(path, scores_of(rows, baseline_rows))


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read metrics.csv, the log of a run.

    Args:
        path: The file.

    Returns:
        A dict per row with the cells that hold a number; [] if there is no such file, as after no steps.
    """
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{name: float(text) for name, text in row.items() if name and text} for row in csv.DictReader(file)]
