"""A sample that a report draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.survey import Survey


@dataclass(frozen=True)
class Example:
    """One sample with what the network made of it.

    Attributes:
        name: What a reader can find it by, such as "data1.npy #12".
        family: Its family, or "" where unknown.
        gathers: (shots, time, receivers).
        prediction: (1, depth, width) or (depth, width), m/s.
        truth: The same shape, m/s. Default None, unknown.
        before: The network's own map, where later steps have changed it, the same shape. Default None.
        uncertainty: Map that 68 % of the errors are expected within, the same shape, m/s. Default None.
        record: Simulated over the prediction, like the gathers. Default None.
        history: (steps, 2): seconds and misfit of a refinement. Default None.
        facts: What is known of it, for the picture. Default nothing.
        survey: Its acquisition, where that is not the report's. Default None.
    """

    name: str
    family: str
    gathers: NDArray[np.floating]
    prediction: NDArray[np.floating]
    truth: NDArray[np.floating] | None = None
    before: NDArray[np.floating] | None = None
    uncertainty: NDArray[np.floating] | None = None
    record: NDArray[np.floating] | None = None
    history: NDArray[np.floating] | None = None
    facts: str = ""
    survey: Survey | None = None

    @property
    def mae(self) -> float:
        """Mean absolute error in m/s, NaN without a truth."""
        if self.truth is None:
            return float("nan")
        return float(np.abs(self.prediction.astype(np.float64) - self.truth).mean())

    @property
    def title(self) -> str:
        """Family and name on one line."""
        return " · ".join(part for part in (self.family, self.name) if part)
