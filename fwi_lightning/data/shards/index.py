"""The index of a folder of shards: what is in which shard, and which samples belong to which fold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.data.files import Part
from fwi_lightning.data.folds import Block
from fwi_lightning.data.ledger import describe_difference
from fwi_lightning.data.shards.layout import Layout
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

INDEX = "index.json"
FORMAT = "fwi-lightning shards"
VERSION = 1
"""Increase when an older program would misread the shards or the index."""


@dataclass(frozen=True)
class Shard:
    """One tar file.

    Attributes:
        name: Path relative to the index.
        fold: The fold that all its samples belong to.
        rows: (samples,) int64, the number of each sample in the whole data set, in the order of the file.
        size: Bytes.
        sha256: Checksum; empty as long as the shard is not written.
    """

    name: str
    fold: int
    rows: NDArray[np.int64]
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Index:
    """What there is to know of a folder of shards without reading them.

    Attributes:
        survey: The survey that recorded the gathers.
        layout: Where in a shard a sample lies.
        folds: Number of folds.
        seed: Of the folds, and of the order of the samples in the shards.
        parts: The files that the samples are from; their paths need not exist.
        blocks: Which rows of these files each fold holds.
        shards: The shards, fold by fold.
        mean_velocity: (folds, depth, width), mean map of each fold in m/s.
    """

    survey: Survey
    layout: Layout
    folds: int
    seed: int
    parts: list[Part]
    blocks: list[Block]
    shards: list[Shard]
    mean_velocity: NDArray[np.float64]

    def check_survey(self, survey: Survey, where: str) -> None:
        """Refuse to take the shards of one survey for those of another.

        Raises:
            UserError: With the first difference.
        """
        if survey != self.survey:
            difference = describe_difference("survey", self.survey.to_dict(), survey.to_dict())
            raise UserError(f"{where} holds shards of a survey {difference}: set physics to the survey of the shards.")

    def to_json(self) -> str:
        """The index as text."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "samples": sum(part.samples for part in self.parts),
            "families": sorted({part.family for part in self.parts}),
            "survey": self.survey.to_dict(),
            "dtype": self.layout.dtype,
            "illumination": self.layout.illumination,
            "note_bytes": self.layout.note,
            "sample_bytes": self.layout.stride,
            "folds": self.folds,
            "seed": self.seed,
            # A sample's number counts through these files in this order.
            "parts": parts_table(self.parts),
            "blocks": [[block.part, block.start, block.stop, block.fold] for block in self.blocks],
            "shards": [
                {"name": s.name, "fold": s.fold, "samples": len(s.rows), "bytes": s.size, "sha256": s.sha256}
                | {"numbers": s.rows.tolist()}
                for s in self.shards
            ],
            "mean_velocity": self.mean_velocity.round(3).tolist(),
        }
        lines = (f"{json.dumps(name)}: {_lines(value)}" for name, value in content.items())
        return "{\n" + ",\n".join(lines) + "\n}\n"


def parse_index(text: str | bytes, where: str) -> Index:
    """An index from its text.

    Args:
        text: The content of an index.json.
        where: Its path or URL, for errors.

    Raises:
        UserError: If it is no index, or one of another version.
    """
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError
        version = content["version"]
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{where} is no index of shards: set data.root to a folder that `python -m fwi_lightning shard` wrote."
        ) from None
    if version != VERSION:
        raise UserError(
            f"{where} is an index of version {version}, this program reads version {VERSION}: write the shards again "
            "with this program, or read them with the one that wrote them."
        )
    try:
        survey = Survey(**content["survey"])
        shards = [
            Shard(s["name"], int(s["fold"]), np.array(s["numbers"], np.int64), int(s["bytes"]), s["sha256"])
            for s in content["shards"]
        ]
        layout = Layout(survey, content["dtype"], bool(content["illumination"]), int(content["note_bytes"]))
        index = Index(
            survey=survey,
            layout=layout,
            folds=int(content["folds"]),
            seed=int(content["seed"]),
            parts=parts_from_table(content["parts"], survey),
            blocks=[Block(*block) for block in content["blocks"]],
            shards=shards,
            mean_velocity=np.array(content["mean_velocity"], np.float64),
        )
        # The index may be from anywhere, and the names in it become paths here.
        damaged = any(Path(s.name).is_absolute() or ".." in Path(s.name).parts or "\\" in s.name for s in shards)
        damaged |= any(s.size != layout.size(len(s.rows)) for s in shards)
    except (ValueError, KeyError, TypeError, UserError):
        damaged = True
    if damaged:
        raise UserError(f"{where} is a damaged index of shards: run the command that wrote it again with check=true.")
    return index


def parts_table(parts: list[Part]) -> list[dict[str, Any]]:
    """What an index keeps of the files that samples are from."""
    return [{"name": part.name, "family": part.family, "samples": part.samples} for part in parts]


def parts_from_table(table: list[dict[str, Any]], survey: Survey) -> list[Part]:
    """The files of such a table, as far as it knows them."""
    return [
        Part(Path(part["name"]), None, part["family"], int(part["samples"]), part["name"], survey.gathers_shape)
        for part in table
    ]


def _lines(value: Any) -> str:
    """JSON with one entry of a list a line, so that people can look at it."""
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
    return json.dumps(value)
