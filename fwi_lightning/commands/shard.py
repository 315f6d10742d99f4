"""`python -m fwi_lightning shard`: write data as WebDataset shards."""

from __future__ import annotations

from omegaconf import DictConfig

from fwi_lightning.config import plain
from fwi_lightning.data import find_parts
from fwi_lightning.data.ledger import Share
from fwi_lightning.data.shards.writing import check_shards, shard_settings, write_shards
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey


def main(config: DictConfig) -> None:
    """Write the shards of one share, or check all of them.

    Args:
        config: conf/shard.yaml.

    Raises:
        UserError: If the data cannot be read, a setting is out of range, the folder cannot be written or holds
            something else, or the check finds that something is missing.
    """
    survey, share = Survey(**plain(config.physics)), Share(config.part, config.parts)
    parts = find_parts(config.input, config.split, survey)
    names = ("shard_mb", "samples_per_shard", "dtype", "illumination", "folds", "seed")
    settings = shard_settings(parts, survey, **{name: config[name] for name in names})
    if config.check:
        missing = check_shards(config.output, settings, share)
        if missing:
            again = "the same command without check" + ("" if share.parts == 1 else " and with that part")
            raise UserError(
                f"{config.output} is not complete, missing or damaged: {missing}. To write it, start {again}."
            )
    else:
        missing = write_shards(parts, config.output, settings, share)
    if missing:
        print(f"part {share.part} of {share.parts} is done; missing: {missing}")
    else:
        print(f"{config.output} is complete; to train on it: python train.py data=shards data.root={config.output}")
