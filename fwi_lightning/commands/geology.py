"""`python -m fwi_lightning geology`: look at velocity maps, drawn or recorded, and compare their statistics."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import rich
from numpy.typing import NDArray
from omegaconf import DictConfig

from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.config import plain
from fwi_lightning.data import find_parts
from fwi_lightning.data.dataset import read_velocity
from fwi_lightning.data.npy import Maps
from fwi_lightning.errors import UserError
from fwi_lightning.figures.maps import contact_sheet
from fwi_lightning.geology import FAMILIES, draw, summarise
from fwi_lightning.report.files import write_bytes
from fwi_lightning.report.tables import records_table, write_csv
from fwi_lightning.survey import Survey

SHOWN = {
    "values": "distinct_values",
    "layers": "layers_per_column",
    "thickness": "layer_thickness",
    "jump": "jump",
    "drops": "drop_share",
    "monotone": "monotone_columns",
    "throw": "throw",
    "slope": "vertical_slope",
}
"""Columns of the terminal's table and the statistics in them; statistics.csv holds all."""


def main(config: DictConfig) -> None:
    """Write contact_sheet.png and statistics.csv.

    Args:
        config: conf/geology.yaml.

    Raises:
        UserError: If a number is out of range, or the input cannot be read.
    """
    if config.maps < 1 or config.columns < 1:
        raise UserError(f"maps and columns must be at least 1, got {config.maps} and {config.columns}.")
    folder = writable_folder(config.output)
    names = list(config.families) if config.families else list(FAMILIES)
    maps = {f"{name}": draw(name, config.maps, config.seed) for name in names}
    if config.input is not None:
        maps |= _recorded(Path(config.input), config.maps, Survey(**plain(config.physics)))
    sheet = contact_sheet({name: stack[: config.columns] for name, stack in maps.items()}, columns=config.columns)
    content = io.BytesIO()
    sheet.savefig(content, dpi=120)
    write_bytes(folder / "contact_sheet.png", content.getvalue())
    rows = summarise(maps)
    write_csv(folder / "statistics.csv", rows)
    shown = [
        {"family": row["family"], "maps": row["maps"]} | {short: f"{row[name]:.2f}" for short, name in SHOWN.items()}
        for row in rows
    ]
    rich.print(records_table(shown).to_rich("mean over the maps"))
    print(f"{folder / 'contact_sheet.png'}\n{folder / 'statistics.csv'}")


def _recorded(root: Path, most: int, survey: Survey) -> dict[str, NDArray[np.float32]]:
    """At most `most` maps of every family found, under "<family> (recorded)"."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    maps = Maps()
    for part in find_parts(root, survey=survey):
        stack = found.setdefault(f"{part.family} (recorded)", [])
        room = min(part.samples, most - len(stack))
        stack.extend(read_velocity(part, row, maps) for row in range(room))
    return {family: np.stack(stack) for family, stack in found.items()}
