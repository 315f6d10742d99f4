"""The files themselves: headers that are read without the data, and memory maps that open on demand."""

from __future__ import annotations

import io
import math
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.errors import UserError

MAGIC = b"\x93NUMPY"
TIFF = (".tif", ".tiff")
"""Names of the other kind of file end so. tifffile is imported where there is one, not for every worker."""
SUFFIXES = (".npy", *TIFF)


@dataclass(frozen=True)
class Header:
    """What the first bytes of a .npy file say.

    Attributes:
        shape: Shape of the array.
        dtype: Its type; never one that holds Python objects.
        fortran: Whether the first axis varies fastest.
        offset: Bytes before the data; None if it does not lie in one piece, as in a compressed TIFF file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    offset: int | None

    @property
    def size(self) -> int:
        """Bytes that the whole file must have."""
        # math.prod of Python integers: one in int64 could wrap around on a forged header.
        return (self.offset or 0) + self.dtype.itemsize * math.prod(self.shape)


def read_header(path: Path) -> Header:
    """Read the header of a .npy or TIFF file and check that the file holds all the data it promises.

    Args:
        path: The file. Nothing but its first bytes is read, so that 65,818 files take seconds.

    Returns:
        The header.

    Raises:
        UserError: If the file cannot be read, is no .npy or TIFF file, holds Python objects or records, or is cut
            short.
    """
    if path.suffix.lower() in TIFF:
        from fwi_lightning.data.tiff import read_layout

        shape, dtype, offset = read_layout(path)
        return Header(shape, dtype, False, offset)
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(512)
            if head[:6] == MAGIC and len(head) > 12:
                length = _header_length(head)
                if length > len(head):
                    head += file.read(length - len(head))
                head = head[:length]
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: correct the path, or put the file back.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it a readable file.") from None
    if head[:6] != MAGIC:
        found = "is empty" if not head else f"starts with {head[:6]!r}, not with {MAGIC!r}"
        raise UserError(f"{path} is not a .npy file: it {found}; write it again with numpy.save.")
    header = _parse(head)
    if isinstance(header, str):
        raise UserError(f"{path} {header}; write a plain array of numbers with numpy.save.")
    if size < header.size:
        raise UserError(
            f"{path} is cut short: an array of shape {header.shape} and type {header.dtype} takes "
            f"{header.size:,} bytes, the file has {size:,}; copy or download it again."
        )
    return header


def _header_length(head: bytes) -> int:
    """Bytes before the data, from the first twelve bytes of the file."""
    wide = head[6] >= 2  # format 2.0 gave the length of the header four bytes instead of two
    return (12 if wide else 10) + int.from_bytes(head[8 : 12 if wide else 10], "little")


# Files of one data set share their header to the byte: parsing it once makes a scan ten times faster.
@lru_cache(maxsize=256)
def _parse(head: bytes) -> Header | str:
    """The header in these bytes, or what is wrong with it (an exception would not be cached)."""
    stream = io.BytesIO(head)
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran, dtype = reader(stream)
    except Exception:  # numpy raises whatever its parser stumbles over, from ValueError to TokenError
        return "has a damaged or unknown .npy header"
    if dtype.hasobject:
        return "holds Python objects, which are never loaded because loading them can run foreign code"
    if dtype.names is not None:
        return f"holds records with the fields {', '.join(dtype.names)}"
    if any(length < 0 for length in shape):
        return f"has a damaged header with the shape {shape}"
    return Header(tuple(shape), dtype, fortran, stream.tell())


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What a .npy file begins with that holds an array of this type and shape in C order."""
    stream = io.BytesIO()
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue()


class Maps:
    """Memory maps by path, opened when first asked for; only the latest few stay open.

    Each process opens its own: a pickled `Maps` arrives empty in a DataLoader worker, so neither data nor
    open files travel. The pages of a map belong to the page cache, so anonymous memory does not grow with the
    data.

    Attributes:
        keep: Number of maps that stay open. Default 128, far below the usual limit of 1024 open files.
        in_memory: Whether files are read whole instead. Default False.
        copies: Files that are read in place of others. Default: none.
    """

    def __init__(self, keep: int = 128, in_memory: bool = False, copies: Mapping[Path, Path] | None = None) -> None:
        self.keep, self.in_memory, self.copies = keep, in_memory, dict(copies or {})
        self._open: OrderedDict[Path, NDArray[Any]] = OrderedDict()

    def __getitem__(self, path: Path) -> NDArray[Any]:
        """The array in a file, read-only, without reading it.

        Raises:
            UserError: As `read_header`.
        """
        array = self._open.get(path)
        if array is None:
            source = self.copies.get(path, path)
            header = read_header(source)
            if header.offset is None:
                from fwi_lightning.data.tiff import read_whole

                array = read_whole(source)
            else:
                order: Literal["C", "F"] = "F" if header.fortran else "C"
                # A plain ndarray view: memmap's own indexing costs more than the header of a small read.
                array = np.asarray(np.memmap(source, header.dtype, "r", header.offset, header.shape, order))
            if self.in_memory:
                array = np.array(array, order="C")
                array.flags.writeable = False
            self._open[path] = array
            if len(self._open) > self.keep:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(path)
        return array

    def __len__(self) -> int:
        """Number of maps open now."""
        return len(self._open)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_open": OrderedDict()}
