"""Where the values of a sample lie in a shard: an uncompressed tar file in WebDataset's format.

Every sample takes the same number of bytes, so that sample i begins at i times that number and a shard can be read in
any order. Number 42 of the data set is
    00000042.gathers.npy        (shots, time, receivers) float16 or float32
    00000042.velocity.npy       (1, depth, width) float32, m/s
    00000042.illumination.npy   (1, depth, width) float32, if wanted
    00000042.json               name, row, family, number, fold
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.data.npy import npy_header
from fwi_lightning.survey import Survey

BLOCK = tarfile.BLOCKSIZE
END = bytes(tarfile.RECORDSIZE)
"""What a tar file ends with: at least two empty blocks."""

GATHERS, VELOCITY, ILLUMINATION = "gathers", "velocity", "illumination"


class MismatchError(ValueError):
    """The bytes are not those of the sample that was looked for; says what they are."""


@dataclass(frozen=True)
class Member:
    """One array of a sample.

    Attributes:
        name: What it is.
        shape: Its shape.
        dtype: Its type on disk, little-endian.
        offset: Where its tar header begins, in bytes from the beginning of the sample.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @cached_property
    def header(self) -> bytes:
        """What the .npy file begins with."""
        return npy_header(self.dtype, self.shape)

    @property
    def size(self) -> int:
        """Bytes of the .npy file."""
        return len(self.header) + self.dtype.itemsize * math.prod(self.shape)

    @property
    def stop(self) -> int:
        """Where the next member begins."""
        return self.offset + BLOCK + _blocks(self.size)


@dataclass(frozen=True)
class Layout:
    """How samples are laid out in a shard.

    Attributes:
        survey: The survey.
        dtype: Type of the gathers on disk, "float16" or "float32".
        illumination: Whether there is the illumination.
        note: Bytes of a sample's .json, filled up with blanks.
    """

    survey: Survey
    dtype: str
    illumination: bool
    note: int

    @cached_property
    def members(self) -> dict[str, Member]:
        """The arrays of a sample by name, in their order."""
        grid = (1, *self.survey.grid)
        arrays = {GATHERS: (self.survey.gathers_shape, self.dtype), VELOCITY: (grid, "float32")}
        if self.illumination:
            arrays[ILLUMINATION] = (grid, "float32")
        members, offset = {}, 0
        for name, (shape, dtype) in arrays.items():
            members[name] = Member(name, shape, np.dtype(dtype).newbyteorder("<"), offset)
            offset = members[name].stop
        return members

    @cached_property
    def arrays(self) -> int:
        """Bytes of a sample's arrays, with their tar headers."""
        return max(member.stop for member in self.members.values())

    @property
    def stride(self) -> int:
        """Bytes of a sample."""
        return self.arrays + BLOCK + _blocks(self.note)

    def size(self, samples: int) -> int:
        """Bytes of a shard of so many samples."""
        return samples * self.stride + len(END)

    def pack(self, number: int, arrays: Mapping[str, NDArray[np.float32]], note: Mapping[str, Any]) -> Iterator[bytes]:
        """The bytes of a sample.

        Args:
            number: Number of the sample.
            arrays: Array of each member.
            note: What else is known of it.

        Raises:
            OverflowError: If gathers hold more than the type on disk can.
        """
        for name, member in self.members.items():
            with np.errstate(over="ignore"):
                values = np.ascontiguousarray(arrays[name], member.dtype).reshape(member.shape)
            if not np.isfinite(values).all():
                raise OverflowError(f"up to {np.abs(arrays[name]).max():g}")
            yield _tar_header(number, f"{name}.npy", member.size)
            yield member.header + values.tobytes() + bytes(-member.size % BLOCK)
        text = json.dumps(dict(note)).encode()
        yield _tar_header(number, "json", self.note)
        yield text.ljust(self.note) + bytes(-self.note % BLOCK)

    def unpack(self, name: str, number: int, data: bytearray, start: int) -> NDArray[np.float32]:
        """One array of a sample, in the memory of the bytes where it is float32 on disk.

        Args:
            name: The member.
            number: Number of the sample.
            data: Bytes of a shard.
            start: Where in them the member's tar header begins.

        Raises:
            MismatchError: If something else lies there.
        """
        member = self.members[name]
        expected = _file_name(number, f"{name}.npy").encode()
        found = bytes(data[start : start + 100]).rstrip(b"\0")
        if found != expected:
            raise MismatchError(f"has {found.decode(errors='replace')!r} in place of {expected.decode()!r}")
        begin = start + BLOCK
        if data[begin : begin + len(member.header)] != member.header:
            raise MismatchError(f"has another type or shape of {expected.decode()!r}")
        values = np.frombuffer(data, member.dtype, math.prod(member.shape), begin + len(member.header))
        # torch converts float16 five times as fast as numpy; float32 stays where it is.
        values = torch.from_numpy(values.reshape(member.shape)).float().numpy()
        if not np.isfinite(values).all():
            raise MismatchError(f"holds values that are not finite in {expected.decode()!r}")
        return values


def _blocks(size: int) -> int:
    """Bytes that so many take in a tar file."""
    return size + -size % BLOCK


def _file_name(number: int, suffix: str) -> str:
    return f"{number:08d}.{suffix}"


def _tar_header(number: int, suffix: str, size: int) -> bytes:
    info = tarfile.TarInfo(_file_name(number, suffix))
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)
