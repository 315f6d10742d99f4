"""`python -m fwi_lightning simulate`: write a survey of drawn maps and their gathers."""

from __future__ import annotations

from omegaconf import DictConfig

from fwi_lightning.config import plain
from fwi_lightning.data import write_survey
from fwi_lightning.data.ledger import Share
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import Survey


def main(config: DictConfig) -> None:
    """Write the survey.

    Args:
        config: conf/simulate.yaml.

    Raises:
        UserError: If a setting is out of range, the folder cannot be written, or holds another survey.
    """
    write_survey(
        config.output,
        families=plain(config.families) or FAMILIES,
        samples_per_family=config.samples_per_family,
        samples_per_file=config.samples_per_file,
        seed=config.seed,
        survey=Survey(**plain(config.physics)),
        share=Share(config.part, config.parts),
        time_step=config.time_step,
        dtype=config.dtype,
    )
    print(config.output)
