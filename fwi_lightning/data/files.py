"""Seismic data as it lies on disk: which files belong together, of which family, with how many samples."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fwi_lightning.data.npy import SUFFIXES, Header, read_header
from fwi_lightning.data.splits import read_split
from fwi_lightning.data.thinned import Kept, find_kept
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import OPENFWI, Survey

UNKNOWN = "unknown"
"""Family of a file whose folder does not tell."""

PARTNERS = {"data": "model", "seismic": "vmodel", "seis": "vel", "gathers": "velocity"}
"""First word of a gathers file (or name of its folder) -> the word in that place for its velocity file."""

_FIRST_WORD = re.compile(r"(seismic|seis|data|gathers|vmodel|velocity|vel|model)(?![a-zA-Z])")
_TEST_NAME = re.compile(r"[0-9a-f]{10}")


Refuse = Callable[[Path, UserError], None]
"""What to do about a file that cannot be used: raise the error, or keep it."""


class MissingPartnerError(UserError):
    """A file of gathers has no velocity file, or the other way round."""


@dataclass(frozen=True)
class Part:
    """One file of gathers and the velocity file that belongs to it.

    Attributes:
        gathers: The .npy file of the gathers.
        velocity: The .npy file of the velocity maps, or None without labels.
        family: Geological family, from the name of the folder.
        samples: Number of samples in the file.
        name: Path relative to the root, without ".npy": unique within one scan.
        shape: Shape of one sample's gathers, (shots, time, receivers).
        kept: What the file holds of the records, where it is not just that: fewer time samples, more shots.
        shots: Places of the survey's shots in such a file.
    """

    gathers: Path
    velocity: Path | None
    family: str
    samples: int
    name: str
    shape: tuple[int, int, int]
    kept: Kept | None = None
    shots: tuple[int, ...] = ()


def find_parts(
    root: str | Path,
    split: str | Path | None = None,
    survey: Survey = OPENFWI,
    labels: bool = True,
    any_width: bool = False,
    on_unusable: Refuse | None = None,
    any_shots: bool = False,
    thinned: bool = False,
) -> list[Part]:
    """Find the files of a data set: Kaggle's layout, OpenFWI's folders, test files or a single file.

    Gathers are files named data*, seis*, seismic* or gathers*, and any other .npy or TIFF file; their velocity is the
    file with the first word exchanged (model*, vel*, vmodel*, velocity*), in the same folder or in the folder
    with the word exchanged (`data/data1.npy`, `model/model1.npy`). Gathers of shape (N, shots, time,
    receivers) or (shots, time, receivers) and velocity of shape (N, depth, width) or (depth, width) are read,
    axes of length one anywhere. Only headers are read.

    Args:
        root: Folder with one or several families, a family's folder, or one .npy file.
        split: Text file with one pair a line, `seismic path<TAB>velocity path`; then only these files are
            used. Default: every .npy file under the root.
        survey: The survey that recorded the gathers. Default OPENFWI.
        labels: Whether every file of gathers must have a velocity file; otherwise velocity files are ignored.
            Default True.
        any_width: Whether the number of receivers, and the width of the labels, may differ from the survey's.
            Default False.
        on_unusable: Called with each file that cannot be used and what is wrong with it, `MissingPartnerError`
            or another UserError, instead of raising it. Gathers whose velocity file cannot be used then come
            back without one. Default: raise the first.
        any_shots: Whether the number of shots may differ from the survey's. Default False.
        thinned: Whether files may be those of `simulate` with a longer time step or more shots. Default False.

    Returns:
        The parts, in the natural order of their paths (data2 before data10).

    Raises:
        UserError: If the root does not exist or holds no .npy file, a partner is missing, a file is no .npy
            file or is cut short, a type or shape does not fit the survey, or the two files differ in samples.
    """
    refuse = on_unusable or _raise
    # resolve() would follow links, and a link may well be what carries the family's name.
    root = Path(os.path.abspath(Path(root).expanduser()))  # noqa: PTH100
    if not root.exists():
        raise UserError(f"{root} does not exist: name a folder of .npy files or one .npy file.")
    if split is not None:
        pairs = read_split(Path(split), root, family_of, labels)
    elif root.is_file():
        pairs = [_pair(root, None, labels, refuse)]
    else:
        pairs = _pairs_in(root, labels, refuse)
    parts = (
        _part(gathers, velocity, root, survey, any_width, any_shots, refuse, thinned) for gathers, velocity in pairs
    )
    return [part for part in parts if part is not None]


def _raise(path: Path, error: UserError) -> None:
    raise error


def family_of(path: Path, root: Path | None = None) -> str:
    """The family of a file.

    Args:
        path: The file.
        root: Where the data set begins: folders above it do not count. Default: all folders of the path
            count.

    Returns:
        The nearest folder that contains the name of one of the ten families ("flatvel-a_train" is FlatVel_A;
        the longest name where several fit); else the nearest folder that is not a mere "data" or "model";
        "unknown" where there is none, and for a single file as the root.
    """
    return _family_of_folder(path.parent, root)


@lru_cache(maxsize=4096)
def _family_of_folder(folder: Path, root: Path | None) -> str:
    own = None
    for current in (folder, *folder.parents):
        known = _known_family(current.name)
        if known:
            return known
        generic = current.name in PARTNERS or current.name in PARTNERS.values()
        if not generic and own is None:
            own = current.name
        # Above the root only a "data" or "model" folder leads on: root=FlatVel_A/data means the family
        # FlatVel_A.
        if root is not None and not generic and (current == root or root not in current.parents):
            break
    return UNKNOWN if root is None or root == folder / root.name or not own else own


def _known_family(folder: str) -> str | None:
    letters = re.sub("[^a-z0-9]", "", folder.lower())
    matches = [family for family in FAMILIES if family.replace("_", "").lower() in letters]
    return max(matches, key=len, default=None)


def _pairs_in(root: Path, labels: bool, refuse: Refuse) -> list[tuple[Path, Path | None]]:
    files = sorted(_array_files(root), key=_natural)
    if not files:
        raise UserError(f"{root} holds no .npy files: name the folder that does.")
    velocities = {path for path in files if _is_velocity(path)}
    gathers = [path for path in files if path not in velocities]
    if not gathers:
        raise UserError(
            f"{root} holds velocity files only, such as {files[0].name}, and no gathers: "
            "add the seismic files (data*.npy or seis*.npy)."
        )
    pairs = [_pair(path, velocities, labels, refuse) for path in gathers]
    if labels:
        for alone in sorted(velocities.difference(velocity for _, velocity in pairs if velocity), key=_natural):
            sentence = (
                f"{alone} has no file of gathers beside it: "
                "add its seismic file (data*.npy or seis*.npy) or remove the velocity file."
            )
            refuse(alone, MissingPartnerError(sentence))
    return pairs


def _pair(gathers: Path, velocities: set[Path] | None, labels: bool, refuse: Refuse) -> tuple[Path, Path | None]:
    """A file of gathers with its velocity file, if it has one that can be found."""
    try:
        return gathers, _partner(gathers, velocities, labels)
    except MissingPartnerError as error:
        refuse(gathers, error)
        return gathers, None


def _array_files(root: Path) -> Iterator[Path]:
    """Every file of arrays under a folder, also through links, but no hidden ones (temporaries, ._macOS)."""
    seen = set()
    for folder, subfolders, names in os.walk(root, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            subfolders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        parent = Path(folder)
        yield from (parent / name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith("."))


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorting key that puts data2 before data10."""
    return [(int(word), "") if word.isdigit() else (-1, word) for word in re.split(r"(\d+)", path.as_posix())]


def _is_velocity(path: Path) -> bool:
    match = _FIRST_WORD.match(path.name)
    word = match.group(1) if match else path.parent.name
    return word in PARTNERS.values()


def _partner(gathers: Path, velocities: set[Path] | None, labels: bool) -> Path | None:
    """The velocity file of a file of gathers: among those known, or on disk where none are given."""
    if not labels:
        return None
    folders, names = [gathers.parent], [gathers.name]
    if gathers.parent.name in PARTNERS:
        folders.append(gathers.parent.parent / PARTNERS[gathers.parent.name])
    match = _FIRST_WORD.match(gathers.name)
    if match and match.group(1) in PARTNERS:
        names.append(PARTNERS[match.group(1)] + gathers.name[match.end() :])
    candidates = [folder / name for folder in folders for name in names if folder / name != gathers]
    for path in candidates:
        if path in velocities if velocities is not None else path.is_file():
            return path
    if not candidates or _TEST_NAME.fullmatch(gathers.stem):
        raise MissingPartnerError(
            f"{gathers} has no velocity labels: training needs pairs such as data1.npy and model1.npy; "
            "for files without labels use predict.py."
        )
    expected = " or ".join(str(path) for path in _nearest_names(candidates))
    raise MissingPartnerError(f"{gathers} has no velocity file: add {expected}, or remove the gathers.")


def _nearest_names(candidates: Iterable[Path]) -> list[Path]:
    """The partners worth naming in an error: those whose own first word says velocity."""
    candidates = list(candidates)
    return [path for path in candidates if _FIRST_WORD.match(path.name) and _is_velocity(path)] or candidates


def _part(
    gathers: Path,
    velocity: Path | None,
    root: Path,
    survey: Survey,
    any_width: bool,
    any_shots: bool,
    refuse: Refuse,
    thinned: bool,
) -> Part | None:
    """The part that two files make; None if the gathers, with their velocity None if only that was refused."""
    samples, shape, kept = 0, None, None
    try:
        header = read_header(gathers)
        kept = _kept(gathers, header, survey) if thinned else None
        if kept is None:
            samples, shape = _gathers_shape(gathers, header, survey, any_width, any_shots)
        else:
            samples, shape = header.shape[0], survey.thinned(kept.step)
    except UserError as error:
        refuse(gathers, error)
    if velocity is not None:
        width = shape[2] if any_width and shape else None
        try:
            labelled = velocity_samples(velocity, read_header(velocity), survey, width)
            if shape and labelled != samples:
                raise UserError(
                    f"{velocity} holds {labelled} samples and {gathers} {samples}: "
                    "the two files of a pair must have the same number, copy them again."
                )
        except UserError as error:
            refuse(velocity, error)
            velocity = None
    if shape is None:
        return None
    inside = gathers.relative_to(root) if gathers.is_relative_to(root) and gathers != root else None
    name = (inside or Path(gathers.name)) if inside or gathers == root else gathers
    family, shots = family_of(gathers, root), tuple(kept.shots_of(survey)) if kept else ()
    return Part(gathers, velocity, family, samples, name.with_suffix("").as_posix(), shape, kept, shots)


def _kept(path: Path, header: Header, survey: Survey) -> Kept | None:
    """What a file of gathers holds, if it is of another shape than the survey's and its manifest explains that."""
    if _samples(header.shape, survey.gathers_shape) is not None or header.dtype.kind != "f":
        return None
    kept = find_kept(path, survey)
    return kept if kept is not None and header.shape[1:] == kept.shape else None


def _gathers_shape(
    path: Path, header: Header, survey: Survey, any_width: bool, any_shots: bool
) -> tuple[int, tuple[int, int, int]]:
    """Number of samples and (shots, time, receivers) of a file of gathers."""
    if header.dtype.kind != "f":
        raise UserError(
            f"{path} holds {header.dtype} values: gathers must be float32 or float16, convert them with astype."
        )
    shots, time, receivers = survey.gathers_shape
    found = [length for length in header.shape if length != 1]
    if any_width and found:
        receivers = found[-1]
    if any_shots and len(found) >= 3:
        shots = found[-3]
    wanted = (shots, time, receivers)
    samples = _samples(header.shape, wanted)
    if samples is None:
        free, some = "R" if any_width else receivers, "S" if any_shots else shots
        raise UserError(
            f"{path} has shape {header.shape}: gathers must be ({some}, {time}, {free}) or "
            f"(N, {some}, {time}, {free}), as (samples, shots, time, receivers){_difference(found, wanted)}."
        )
    if samples == 0:
        raise UserError(f"{path} holds no samples (shape {header.shape}): remove the file or write it again.")
    return samples, wanted


def _difference(found: list[int], wanted: tuple[int, int, int]) -> str:
    """What another survey differs in, where the file has the right number of axes."""
    names = ("shots", "time samples", "receivers")
    if len(found) not in (3, 4):
        return "; save them in that order"
    differences = [
        f"{have} {name} where the survey has {want}"
        for name, have, want in zip(names, found[-3:], wanted, strict=True)
        if have != want
    ]
    return f"; it has {' and '.join(differences)}: set the survey to the one that recorded it"


def velocity_samples(path: Path, header: Header, survey: Survey, width: int | None = None) -> int:
    """Number of maps in a velocity file.

    Args:
        path: The file, for the error.
        header: Its header.
        survey: The survey, whose grid the maps must have.
        width: Width of the maps. Default: that of the survey's grid.

    Returns:
        The number.

    Raises:
        UserError: If the file holds no numbers, or maps on another grid.
    """
    if header.dtype.kind not in "fiu":
        raise UserError(f"{path} holds {header.dtype} values: velocity must be floating-point or whole numbers in m/s.")
    depth, columns = survey.grid[0], survey.grid[1] if width is None else width
    samples = _samples(header.shape, (depth, columns))
    if samples is None:
        raise UserError(
            f"{path} has shape {header.shape}: velocity maps on this survey's grid must be "
            f"({depth}, {columns}), (N, {depth}, {columns}) or (N, 1, {depth}, {columns}); "
            "use labels on the same grid."
        )
    return samples


def _samples(shape: tuple[int, ...], wanted: tuple[int, ...]) -> int | None:
    """Number of samples of shape `wanted` in an array, or None if it does not hold such samples.

    Axes of length one may stand anywhere: they change neither the order nor the number of the values.
    """
    found = tuple(length for length in shape if length != 1)
    core = tuple(length for length in wanted if length != 1)
    if found == core:
        return 1
    return found[0] if found[1:] == core else None
