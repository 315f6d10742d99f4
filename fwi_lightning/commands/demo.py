"""`python predict.py` with nothing after it: the starter model on a handful of records, one of which is refined."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from fwi_lightning.commands.folders import writable_folder
from fwi_lightning.geology import draw
from fwi_lightning.physics import simulate
from fwi_lightning.report.files import write_bytes
from fwi_lightning.starter import TEST_SEED, starter
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import read_checkpoint

FAMILIES = ("FlatVel_A", "CurveVel_B", "FlatFault_A", "CurveFault_B", "Style_A")
"""Families that a map is drawn of."""

PLACE = 50
"""Number of the map in its family: beyond those of the scoreboard, so that neither is chosen by the other."""

REFINED = "FlatVel_A"
"""The record that is refined."""

SECONDS = 20
"""For the refinement."""


def with_starter(config: DictConfig) -> DictConfig:
    """The settings with the starter model where no other start is named.

    Args:
        config: conf/predict.yaml.

    Raises:
        UserError: If it is needed and this copy has none.
    """
    if config.ckpt is not None or config.get("start") is not None:
        return config
    return OmegaConf.merge(config, {"ckpt": str(starter())})  # type: ignore[return-value]


def demonstrate(config: DictConfig, predict: Callable[[DictConfig], None]) -> None:
    """Draw a few maps, simulate their records, invert these, refine one, and say where the pictures are.

    The records are simulated and not shipped: a second of work, instead of megabytes in every copy.

    Args:
        config: conf/predict.yaml, with a checkpoint and without an input.
        predict: What predict.py does.

    Raises:
        UserError: If the checkpoint cannot be read or the output folder not be written.
    """
    survey = Survey(**read_checkpoint(config.ckpt)["hyper_parameters"]["survey"])
    folder = writable_folder(config.output)
    print(f"no input=: {len(FAMILIES)} records of maps that no model was trained on are simulated into {folder}")
    for family in FAMILIES:
        velocity = draw(family, 1, TEST_SEED, start=PLACE, shape=survey.grid)
        _save(folder / "gathers" / f"{family}.npy", simulate(torch.from_numpy(velocity[:, 0]), survey).numpy())
        _save(folder / "truth" / f"{family}.npy", velocity)
    common = {"input": str(folder / "gathers"), "truth": str(folder / "truth"), "output": str(folder / "maps")}
    predict(OmegaConf.merge(config, common))  # type: ignore[arg-type]
    print(f"\n{REFINED} once more, its map improved by full waveform inversion for {SECONDS} s")
    refining = compose("predict", overrides=["inference=refine", f"inference.refine.seconds={SECONDS}"]).inference
    one = {
        "input": str(folder / "gathers" / f"{REFINED}.npy"),
        "truth": str(folder / "truth" / f"{REFINED}.npy"),
        "output": str(folder / "refined"),
    }
    predict(OmegaConf.merge(config, one, {"inference": refining}))  # type: ignore[arg-type]
    print(
        f"\npictures: {folder / 'maps' / 'report.html'} and {folder / 'refined' / 'report.html'}; "
        "your own records: python predict.py input=FILE_OR_DIR output=DIR"
    )


def _save(path: Path, array: NDArray[Any]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array)
    write_bytes(path, buffer.getvalue())
