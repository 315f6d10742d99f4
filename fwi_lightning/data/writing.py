"""Writing a simulated survey in the layout of OpenFWI and Kaggle: whole files, resumable, with a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.ledger import MANIFEST, Ledger, Share
from fwi_lightning.data.npy import npy_header
from fwi_lightning.data.progress import Progress
from fwi_lightning.data.whole import WholeFile, temporary_name
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI, Survey

MAPS_VERSION = 1
"""Increase when `geology.draw` or `physics.simulate` gives other numbers: caches are then made anew."""

FAULT_NUMBERS = {"A": (2, 4, 3), "B": (6, 8, 7)}
"""First number in the names of the fault families' files; two files are named as Kaggle's two."""

CONTENT = "a simulated survey"

DTYPES = ("float32", "float16")


def write_survey(
    output: str | Path,
    families: Sequence[str] = FAMILIES,
    samples_per_family: int = 500,
    samples_per_file: int = 500,
    seed: int = 0,
    survey: Survey = OPENFWI,
    batch: int = 8,
    share: Share | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    time_step: float | None = None,
    dtype: str = "float32",
) -> Path:
    """Draw velocity maps, simulate their gathers and write both.

    Families take turns, so that a run that is stopped has some of each. A run that is repeated with the same
    settings goes on after the files that are whole; one with other settings is refused. Of each pair of files
    either both are there and whole or neither, also after a stop. A second run at the same time waits for the
    first; shares of one survey are written at the same time.

    Args:
        output: Folder to write to; made if missing.
        families: Families to draw. Default: all ten.
        samples_per_family: Maps of each family, at least 1. Default 500.
        samples_per_file: Samples in a file, at least 1; a family's last file may have fewer. Default 500.
        seed: Of the maps, 0 or more. Default 0.
        survey: The survey to simulate; its grid is that of the maps. Default OPENFWI.
        batch: Samples simulated at a time; memory grows with it. Default 8.
        share: The share of the files to write. Default: all.
        on_progress: Called with samples done and samples in all after each batch. Default: a bar on a
            terminal, otherwise a line now and then.
        time_step: Seconds between the samples that are kept, a multiple of the survey's; sample 0 stays sample 0.
            Default: the survey's, all of them.
        dtype: Type of the gathers in the files, "float32" or "float16". Default "float32".

    Returns:
        The folder.

    Raises:
        UserError: If a number is out of range, a family unknown, or the folder cannot be written, holds a
            survey with other settings or files that are no survey of ours.
    """
    output, share = Path(output), share or Share()
    settings = survey_settings(families, samples_per_family, samples_per_file, seed, survey, time_step, dtype)
    ledger = Ledger(output, settings, CONTENT, "*.npy", share)
    try:
        # First without a lock: a whole survey may lie where nothing can be written.
        if (output / MANIFEST).exists() and not _missing(output, ledger, list(_plan(settings))):
            return output
        output.mkdir(parents=True, exist_ok=True)
        with share.locked(output):
            _write(output, ledger, share, survey, batch, on_progress)
    except OSError as error:
        raise UserError(
            f"{output} cannot be written ({error.strerror or error}): choose a folder you may write to, on a disk "
            "with space."
        ) from None
    return output


def survey_settings(
    families: Sequence[str],
    samples_per_family: int,
    samples_per_file: int,
    seed: int,
    survey: Survey,
    time_step: float | None = None,
    dtype: str = "float32",
) -> dict[str, Any]:
    """All that decides the content of a simulated survey, as plain numbers, after checking it.

    Thinned and rounded files say so; the settings of whole ones are those of before there were others.

    Raises:
        UserError: If a number is out of range or a family unknown.
    """
    numbers = {"samples_per_family": samples_per_family, "samples_per_file": samples_per_file, "seed": seed}
    for name, number in numbers.items():
        least = 0 if name == "seed" else 1
        if number < least:
            raise UserError(f"{name} must be at least {least}, got {number}.")
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise UserError(f"families must be some of {', '.join(FAMILIES)}, got {unknown[0] if unknown else 'none'}.")
    if dtype not in DTYPES:
        raise UserError(f"dtype must be {' or '.join(DTYPES)}, got {dtype!r}.")
    chosen = [family for family in FAMILIES if family in families]
    settings = {"families": chosen} | numbers | {"maps_version": MAPS_VERSION, "survey": survey.to_dict()}
    if time_step is not None and survey.thinning("time_step", time_step) > 1:
        settings["time_step"] = time_step
    if dtype != "float32":
        settings["dtype"] = dtype
    return settings


def _write(
    output: Path,
    ledger: Ledger,
    share: Share,
    survey: Survey,
    batch: int,
    on_progress: Callable[[int, int], None] | None,
) -> None:
    """Write the files of this share that are missing; with the last of all shares the manifest is complete."""
    ledger.begin()
    plan = list(_plan(ledger.settings))
    mine = share.of(plan)
    for part in mine:  # of a killed run
        for name in (part["gathers"], part["velocity"]):
            temporary_name(output / name).unlink(missing_ok=True)
    missing = _missing(output, ledger, mine)
    total = sum(part["samples"] for part in mine)
    done = total - sum(part["samples"] for part in missing)
    with Progress(f"simulating {output}", done, total, on_progress) as progress:
        for part in missing:
            ledger.record(part["gathers"], _write_part(output, part, ledger.settings, survey, batch, progress))
    if share.parts > 1:
        left = {part["gathers"] for part in _missing(output, ledger, plan)}
        whole = {part["gathers"]: part for part in plan if part["gathers"] not in left}
        words = share.missing([part["gathers"] for part in plan], whole)
        if not words:
            ledger.join()
        print(f"part {share.part} of {share.parts} is done; " + (f"missing: {words}" if words else "all are there"))


def _missing(output: Path, ledger: Ledger, plan: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts of a plan that are not there and whole."""
    finished = ledger.finished()
    return [part for part in plan if not _is_whole(output, finished.get(part["gathers"]))]


def _plan(settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts in the order of writing: the first of every family, then the second."""
    count, size = settings["samples_per_family"], settings["samples_per_file"]
    for number, start in enumerate(range(0, count, size)):
        for family in settings["families"]:
            gathers, velocity = part_names(family, number)
            yield {
                "family": family,
                "start": start,
                "samples": min(size, count - start),
                "gathers": gathers,
                "velocity": velocity,
            }


def part_names(family: str, number: int) -> tuple[str, str]:
    """Paths of a family's part, as in OpenFWI.

    Args:
        family: The family.
        number: Number of the part in its family, from 0.

    Returns:
        Paths of gathers and velocity relative to the data set's root.
    """
    if "Fault" in family:
        firsts = FAULT_NUMBERS[family[-1]]
        word = f"{firsts[number % len(firsts)]}_1_{number // len(firsts)}"
        return f"{family}/seis{word}.npy", f"{family}/vel{word}.npy"
    return f"{family}/data/data{number + 1}.npy", f"{family}/model/model{number + 1}.npy"


def _write_part(
    output: Path, part: dict[str, Any], settings: dict[str, Any], survey: Survey, batch: int, progress: Progress
) -> dict[str, Any]:
    """Draw, simulate and write one pair of files; returns its entry in the manifest."""
    samples, seed = part["samples"], settings["seed"]
    step = survey.thinning("time_step", settings.get("time_step", survey.time_step))
    shapes = {"gathers": (samples, *survey.thinned(step)), "velocity": (samples, 1, *survey.grid)}
    dtypes = {"gathers": settings.get("dtype", "float32"), "velocity": "float32"}
    files = {name: _PartFile(output / part[name], shape, dtypes[name]) for name, shape in shapes.items()}
    try:
        for first in range(0, samples, batch):
            count = min(batch, samples - first)
            velocity = draw(part["family"], count, seed, start=part["start"] + first, shape=survey.grid)
            files["velocity"].append(velocity)
            with torch.no_grad():
                gathers = simulate(torch.from_numpy(velocity[:, 0]), survey)
            files["gathers"].append(gathers[..., ::step, :].numpy())
            progress.advance(count)
        sums = {f"{name}_sha256": file.finish() for name, file in files.items()}
        for file in files.values():
            file.publish()
    except BaseException:  # Ctrl-C as well: nothing half-written stays
        for file in files.values():
            file.discard()
            file.path.unlink(missing_ok=True)
        raise
    return part | sums | {f"{name}_bytes": (output / part[name]).stat().st_size for name in files}


class _PartFile(WholeFile):
    """A .npy file that is there whole or not at all."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        super().__init__(path)
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.write(npy_header(self.dtype, shape))

    def append(self, array: NDArray[np.float32]) -> None:
        """Write the next samples.

        Raises:
            UserError: If a value is too large for the type.
        """
        largest, most = float(np.abs(array).max(initial=0)), float(np.finfo(self.dtype).max)
        if largest > most:
            raise UserError(
                f"{self.path} would hold values of {largest:g}, more than {self.dtype.name} can: use dtype=float32."
            )
        self.write(np.ascontiguousarray(array, dtype=self.dtype).data.cast("B"))


def _is_whole(output: Path, entry: dict[str, Any] | None) -> bool:
    """Whether both files of a part are there with the size that the manifest gives."""
    if entry is None:
        return False
    try:
        return all((output / entry[name]).stat().st_size == entry[f"{name}_bytes"] for name in ("gathers", "velocity"))
    except FileNotFoundError:
        return False
