"""`python -m fwi_lightning convert`: an InversionNet of github lanl/OpenFWI as a checkpoint of ours."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from fwi_lightning.training.export import write_checkpoint
from fwi_lightning.training.openfwi import convert


def main(config: DictConfig) -> None:
    """Write the checkpoint.

    Args:
        config: conf/convert.yaml.

    Raises:
        UserError: If the family is unknown, the file is no InversionNet, or the output cannot be written.
    """
    output = Path(config.output)
    write_checkpoint(convert(config.ckpt, config.family), output)
    print(f"{output}; for gathers of {config.family}: python predict.py ckpt={output} input=...")
