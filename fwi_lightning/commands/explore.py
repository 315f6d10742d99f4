"""`python -m fwi_lightning explore`: what is in a data set, and what is wrong with it."""

from __future__ import annotations

import dataclasses

import rich
from omegaconf import DictConfig

from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.config import plain
from fwi_lightning.data.exploration import Effort, explore, group
from fwi_lightning.errors import UserError
from fwi_lightning.report.exploration import family_table, write_exploration
from fwi_lightning.survey import Survey


def main(config: DictConfig) -> None:
    """Look at a data set, print a table of its families and its problems, write the page and the tables.

    It ends well whatever is found: what is wrong with the data is its result.

    Args:
        config: conf/explore.yaml.

    Raises:
        UserError: If a setting is out of range, no file of the input can be read, or the output cannot be written.
    """
    effort = Effort(**{field.name: config[field.name] for field in dataclasses.fields(Effort)})
    if not (isinstance(config.listed, int) and config.listed >= 0):
        raise UserError(f"listed must be a whole number, at least 0, got {config.listed}.")
    folder = writable_folder(config.output)
    found = explore(config.input, Survey(**plain(config.physics)), effort)
    path = write_exploration(folder, found)
    rich.print(family_table(found).to_rich())
    for remark in found.remarks:
        print(remark)
    groups = group(found.problems)
    print(f"{len(found.problems):,} problem{'s' if len(found.problems) != 1 else ''} found")
    for item in groups[: config.listed]:
        print(f"- {item}")
    left = sum(item.count for item in groups[config.listed :])
    if left:
        print(f"... and {left:,} more: {folder / 'problems.csv'} lists all")
    print(path)
