"""Writing shards: each whole or not at all, by one process or many, and the index when all are there."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.dataset import GathersDataset, read_gathers, read_velocity
from fwi_lightning.data.files import Part
from fwi_lightning.data.folds import assign_folds, rows_of_fold
from fwi_lightning.data.ledger import Ledger, Share
from fwi_lightning.data.npy import Maps
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.shards.index import INDEX, VERSION, Index, Shard, parts_from_table, parts_table
from fwi_lightning.data.shards.layout import BLOCK, END, GATHERS, ILLUMINATION, VELOCITY, Layout, MismatchError
from fwi_lightning.data.whole import WholeFile, write_whole
from fwi_lightning.errors import UserError
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import Survey

CONTENT = "shards"
DTYPES = ("float16", "float32")
BATCH = 16
"""Samples in memory at a time."""


def shard_settings(
    parts: Sequence[Part],
    survey: Survey,
    shard_mb: float = 256,
    samples_per_shard: int | None = None,
    dtype: str = "float32",
    illumination: bool = True,
    folds: int = 5,
    seed: int = 0,
) -> dict[str, Any]:
    """All that decides what is in which shard, as plain values, after checking it.

    Args:
        parts: The files to read, with labels.
        survey: The survey that recorded them.
        shard_mb: Largest size of a shard in MB (10^6 bytes). Default 256.
        samples_per_shard: Most samples in a shard, instead of `shard_mb`. Default: as many as fit.
        dtype: Type of the gathers, float32 (exact) or float16 (half the size). Default float32.
        illumination: Whether to simulate every map for the illumination that losses of the wave equation need.
        folds: Number of folds. Default 5.
        seed: Of the folds, which are those of unsharded data with this seed, and of the order. Default 0.

    Raises:
        UserError: If a setting is out of range, or a family has fewer samples than folds.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    if seed < 0:
        raise UserError(f"seed must be at least 0, got {seed}.")
    assign_folds(parts, folds, seed)
    # The longest note decides how long all are.
    note = max(len(json.dumps(_note(part, part.samples, 10**8, folds))) for part in parts)
    layout = Layout(survey, dtype, illumination, note + -note % BLOCK)
    if samples_per_shard is None:
        samples_per_shard = int((shard_mb * 1e6 - len(END)) // layout.stride)
        if samples_per_shard < 1:
            raise UserError(
                f"shard_mb must be at least {math.ceil(layout.size(1) / 1e3) / 1e3:g}, the size of one sample, "
                f"got {shard_mb}."
            )
    if samples_per_shard < 1:
        raise UserError(f"samples_per_shard must be at least 1, got {samples_per_shard}.")
    return {
        "version": VERSION,
        "dtype": dtype,
        "illumination": illumination,
        "note_bytes": layout.note,
        "folds": folds,
        "seed": seed,
        "samples_per_shard": samples_per_shard,
        "survey": survey.to_dict(),
        "files": parts_table(list(parts)),
    }


def plan_index(settings: dict[str, Any]) -> Index:
    """The index of the shards that settings ask for, as it is before any is written.

    The samples of each fold are shuffled, so that every shard is a fair mix of the families, and dealt out evenly.
    """
    survey = Survey(**settings["survey"])
    parts = parts_from_table(settings["files"], survey)
    folds, seed, most = settings["folds"], settings["seed"], settings["samples_per_shard"]
    layout = Layout(survey, settings["dtype"], settings["illumination"], settings["note_bytes"])
    blocks = assign_folds(parts, folds, seed)
    shards = []
    for fold in range(folds):
        _, rows = rows_of_fold(parts, blocks, fold)
        shuffled = np.random.default_rng((seed, fold)).permutation(rows)
        for number, chosen in enumerate(np.array_split(shuffled, -(-len(rows) // most))):
            shards.append(Shard(f"fold{fold}/{number:05d}.tar", fold, chosen, layout.size(len(chosen))))
    return Index(survey, layout, folds, seed, parts, blocks, shards, np.zeros((folds, *survey.grid)))


def write_shards(
    parts: Sequence[Part],
    output: str | Path,
    settings: dict[str, Any],
    share: Share | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> str:
    """Write the shards of one share that are not there yet; with the last of all shares also the index.

    A start after a stop goes on with the next shard; one with other settings is refused.

    Args:
        parts: The files to read, those of the settings.
        output: Folder; made if missing.
        settings: From `shard_settings`.
        share: The share of the shards to write. Default: all.
        on_progress: Called with samples done and samples in all instead of showing them.

    Returns:
        What is still missing, in words; empty if the shards are complete.

    Raises:
        UserError: If a sample cannot be read, the folder cannot be written or holds something else.
    """
    output, share = Path(output), share or Share()
    index, ledger = plan_index(settings), Ledger(output, settings, CONTENT, "*.tar", share)
    try:
        output.mkdir(parents=True, exist_ok=True)
        with share.locked(output):
            ledger.begin()
            finished = _finished(output, ledger, index.shards)
            mine = share.of(index.shards)
            missing = [shard for shard in mine if shard.name not in finished]
            if missing:
                (output / INDEX).unlink(missing_ok=True)
            total, left = (sum(len(shard.rows) for shard in shards) for shards in (mine, missing))
            dataset = GathersDataset(parts)
            with Progress(f"writing {output}", total - left, total, on_progress) as progress:
                for shard in missing:
                    ledger.record(shard.name, _write_shard(output, shard, index, dataset, progress))
            return _complete(output, ledger, index, share)
    except OSError as error:
        raise _unwritable(output, error) from None


def check_shards(output: str | Path, settings: dict[str, Any], share: Share | None = None) -> str:
    """Compare every shard with its checksum; write the index if all are right, else have the damaged ones redone.

    Args:
        output: The folder.
        settings: From `shard_settings`.
        share: Into how many shares the work was divided, for the answer. Default: one.

    Returns:
        What is missing or damaged, in words; empty if the shards are complete. The next start writes it again.

    Raises:
        UserError: If the folder holds something else or cannot be written.
    """
    output, share = Path(output), share or Share()
    index, ledger = plan_index(settings), Ledger(output, settings, CONTENT, "*.tar")
    try:
        finished = _finished(output, ledger, index.shards)
        known = [shard for shard in index.shards if shard.name in finished]
        damaged = []
        with Progress(f"checking {output}", 0, sum(len(shard.rows) for shard in known)) as progress:
            for shard in known:
                with (output / shard.name).open("rb") as file:
                    if hashlib.file_digest(file, "sha256").hexdigest() != finished[shard.name]["sha256"]:
                        damaged.append(shard.name)
                progress.advance(len(shard.rows))
        ledger.forget(damaged)
        words = _complete(output, ledger, index, share)
        if words:
            (output / INDEX).unlink(missing_ok=True)  # nobody is to train on what it says
        return words
    except OSError as error:
        raise _unwritable(output, error) from None


def _complete(output: Path, ledger: Ledger, index: Index, share: Share) -> str:
    """Write the index if all shards are there; otherwise which are not."""
    finished = _finished(output, ledger, index.shards)
    words = share.missing([shard.name for shard in index.shards], finished)
    if not words and not (output / INDEX).is_file():
        shards = [replace(shard, sha256=finished[shard.name]["sha256"]) for shard in index.shards]
        ledger.join()
        means = _mean_velocities(output, index)
        write_whole(output / INDEX, replace(index, shards=shards, mean_velocity=means).to_json())
    return words


def _finished(output: Path, ledger: Ledger, shards: Sequence[Shard]) -> dict[str, Any]:
    """Entries of the shards that are written down and there with their size."""
    entries = ledger.finished()
    sizes = {shard.name: shard.size for shard in shards if shard.name in entries}
    return {
        name: entries[name]
        for name, size in sizes.items()
        if (output / name).is_file() and (output / name).stat().st_size == size
    }


def _write_shard(
    output: Path, shard: Shard, index: Index, dataset: GathersDataset, progress: Progress
) -> dict[str, Any]:
    """Write one shard; returns its entry in the manifest."""
    maps, file = Maps(), WholeFile(output / shard.name)
    try:
        for start in range(0, len(shard.rows), BATCH):
            numbers = shard.rows[start : start + BATCH].tolist()
            places = [dataset.locate(number) for number in numbers]
            velocity = [read_velocity(part, row, maps) for part, row in places]
            light = _illumination(velocity, index) if index.layout.illumination else velocity
            for number, (part, row), label, lit in zip(numbers, places, velocity, light, strict=True):
                arrays = {GATHERS: read_gathers(part, row, maps), VELOCITY: label, ILLUMINATION: lit}
                try:
                    for piece in index.layout.pack(number, arrays, _note(part, row, number, shard.fold)):
                        file.write(piece)
                except OverflowError as error:
                    raise UserError(
                        f"{part.gathers}, sample {row}, holds values of {error}, more than float16 can: "
                        "use dtype=float32."
                    ) from None
            progress.advance(len(numbers))
        file.write(END)
        sha256 = file.finish()
        file.publish()
    except BaseException:  # Ctrl-C as well: nothing half-written stays
        file.discard()
        raise
    return {"fold": shard.fold, "samples": len(shard.rows), "bytes": shard.size, "sha256": sha256}


def _note(part: Part, row: int, number: int, fold: int) -> dict[str, Any]:
    """What a sample's .json says."""
    return {"name": part.name, "row": row, "family": part.family, "number": number, "fold": fold}


def _illumination(velocity: Sequence[NDArray[np.float32]], index: Index) -> NDArray[np.float32]:
    """(samples, 1, depth, width) float32."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    maps = torch.from_numpy(np.concatenate(velocity)).to(device)
    try:
        return illuminate(maps, index.survey)[1].cpu().numpy()[:, None]
    except UserError as error:
        raise UserError(f"{error} illumination=false writes shards without a simulation.") from None


def _mean_velocities(output: Path, index: Index) -> NDArray[np.float64]:
    """Mean map of each fold, (folds, depth, width), read back from the shards."""
    sums, counts = np.zeros((index.folds, *index.survey.grid)), np.zeros(index.folds)
    member = index.layout.members[VELOCITY]
    for shard in index.shards:
        counts[shard.fold] += len(shard.rows)
        with (output / shard.name).open("rb", buffering=0) as file:
            for place, number in enumerate(shard.rows.tolist()):
                file.seek(place * index.layout.stride + member.offset)
                data = bytearray(file.read(member.stop - member.offset))
                try:
                    sums[shard.fold] += index.layout.unpack(VELOCITY, number, data, 0)[0]
                except MismatchError as error:
                    raise UserError(f"{output / shard.name} {error}: start the command with check=true.") from None
    return sums / counts[:, None, None]


def _unwritable(output: Path, error: OSError) -> UserError:
    return UserError(
        f"{output} cannot be written ({error.strerror or error}): choose a folder you may write to, on a disk with "
        "space; the shards that are whole stay, and the same command goes on."
    )
