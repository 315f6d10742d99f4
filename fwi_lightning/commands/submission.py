"""submission.csv of the Kaggle competition, written as the predictions come."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.errors import UserError


class Submission:
    """A context that writes the file row by row under a temporary name and renames it when all went well.

    The format: a header `oid_ypos,x_1,x_3,...,x_69`, then for each sample a row per depth with its odd columns.

    Args:
        path: Where the file shall be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.part")
        self._width = 0

    def __enter__(self) -> Submission:
        """Open the temporary file."""
        try:
            self._file = self._temporary.open("w")
        except OSError as error:
            raise UserError(f"{self.path} cannot be written ({error.strerror}): choose another output.") from error
        return self

    def write(self, oid: str, velocity: NDArray[np.floating]) -> None:
        """Add one sample.

        Args:
            oid: Name of the sample, without ".npy".
            velocity: (depth, width) in m/s.
        """
        if not self._width:
            self._width = velocity.shape[1]
            columns = ",".join(f"x_{column}" for column in range(1, self._width, 2))
            self._file.write(f"oid_ypos,{columns}\n")
        for depth, row in enumerate(velocity[:, 1::2].tolist()):
            self._file.write(f"{oid}_y_{depth},{','.join(f'{value:.2f}' for value in row)}\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Rename the file, or remove it after an error."""
        self._file.close()
        if error is None:
            self._temporary.replace(self.path)
        else:
            self._temporary.unlink(missing_ok=True)
