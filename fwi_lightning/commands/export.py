"""`python -m fwi_lightning export`: a checkpoint to hand on, and a card that says what it was made of."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fwi_lightning.data.ledger import MANIFEST
from fwi_lightning.data.whole import write_whole
from fwi_lightning.errors import UserError
from fwi_lightning.report.card import Card, model_card
from fwi_lightning.training.export import export

BEST = "checkpoints/best.ckpt"


def main(config: DictConfig) -> None:
    """Write the model and its card.

    Args:
        config: conf/export.yaml.

    Raises:
        UserError: If the checkpoint is none, lies in no run folder, or the file cannot be written or is too large.
    """
    given, output = Path(config.ckpt), Path(config.output)
    path = given / BEST if given.is_dir() else given
    folder = path.parent.parent
    settings = _settings(folder, path)
    content = export(path, output)
    size = output.stat().st_size / 1e6
    if size > config.most_mb:
        output.unlink()
        raise UserError(f"{output} takes {size:.1f} MB, more than most_mb={config.most_mb:g}: train a smaller model.")
    validated, scores = _scores(folder, int(content["global_step"]))
    card = Card(
        name=output.stem,
        settings=settings,
        survey=_manifest(Path(str(settings["data"].get("root")))),
        environment=json.loads((folder / "environment.json").read_text()),
        step=int(content["global_step"]),
        parameters=sum(value.numel() for value in content["state_dict"].values()),
        megabytes=size,
        samples=_samples(folder),
        scores=scores,
        validated=validated,
    )
    page = output.with_suffix(".md")
    write_whole(page, model_card(card))
    print(f"{output}: {size:.1f} MB; {page}")


def _settings(folder: Path, path: Path) -> dict[str, Any]:
    """The settings of the run that a checkpoint is of."""
    for name in ("config.yaml", "environment.json"):
        if not (folder / name).is_file():
            raise UserError(f"{path} lies in no run folder (no {folder / name}): give ckpt= one, for the card.")
    settings = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(settings, dict)
    return {str(name): value for name, value in settings.items()}


def _manifest(root: Path) -> dict[str, Any]:
    """The settings of the simulated survey that a run was trained on; empty if it was another kind of data."""
    try:
        return dict(json.loads((root / MANIFEST).read_text(encoding="utf-8"))["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _samples(folder: Path) -> int:
    """How many samples the run's folds have, trained on and held out; from split.csv."""
    with (folder / "split.csv").open(newline="") as file:
        return sum(int(row["last_row"]) - int(row["first_row"]) + 1 for row in csv.DictReader(file))


def _scores(folder: Path, step: int) -> tuple[int, Mapping[str, float]]:
    """The last validation up to a step: after how many steps it was, and what it gave by logged name."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("val/mae") and int(row["step"]) <= step]
    if not rows:
        return 0, {}
    last = rows[-1]
    return int(last["step"]) + 1, {
        name: float(value) for name, value in last.items() if name.startswith("val/") and value
    }
