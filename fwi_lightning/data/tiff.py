"""TIFF files of maps and gathers: their shape, and their data where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from fwi_lightning.errors import UserError


def read_layout(path: Path) -> tuple[tuple[int, ...], np.dtype[np.generic], int | None]:
    """Shape, type and place of the array in a TIFF file; no data is read.

    Args:
        path: A file of one series of pages, each a map or the gather of a shot; further axes as tifffile writes them,
            or all pages along one axis.

    Returns:
        Shape, type, and the bytes before the data, or None where it is compressed or scattered.

    Raises:
        UserError: If it cannot be read, is no TIFF file, holds no plain numbers, or is cut short.
    """
    try:
        with tifffile.TiffFile(path) as file:
            if not file.series:
                raise UserError(f"{path} holds no pages: write it again.")
            series = file.series[0]
            if len(file.series) > 1:
                raise UserError(f"{path} holds {len(file.series)} series of pages: write a file for each.")
            dtype = np.dtype(series.dtype).newbyteorder(file.byteorder)
            shape, offset = tuple(series.shape), series.dataoffset
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: correct the path, or put the file back.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): make it a readable file.") from None
    except tifffile.TiffFileError as error:
        raise UserError(f"{path} is not a TIFF file ({error}): write it again with tifffile.imwrite.") from None
    if dtype.kind not in "iuf":
        raise UserError(f"{path} holds values of type {dtype}: write a plain array of numbers with tifffile.imwrite.")
    if offset is not None and path.stat().st_size < offset + dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise UserError(f"{path} is cut short: {shape} of type {dtype} take more bytes than it has; copy it again.")
    return shape, dtype, offset


def read_whole(path: Path) -> NDArray[np.generic]:
    """The array of a file that is compressed or scattered.

    Raises:
        UserError: If its compression is unknown, or it is damaged.
    """
    try:
        return np.asarray(tifffile.imread(path))
    except (ValueError, RuntimeError, OSError, tifffile.TiffFileError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} cannot be read ({reason}): write it uncompressed with tifffile.imwrite.") from error
