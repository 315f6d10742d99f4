"""What becomes of gathers before a network reads them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

RANGES = ("log1p", "official", "trace", "raw")

EXTREMES = {
    "FlatVel_A": (-26.95, 52.77),
    "FlatVel_B": (-27.17, 56.05),
    "CurveVel_A": (-27.11, 55.10),
    "CurveVel_B": (-29.04, 57.03),
    "FlatFault_A": (-26.10, 50.86),
    "FlatFault_B": (-24.86, 50.28),
    "CurveFault_A": (-26.48, 52.32),
    "CurveFault_B": (-24.93, 50.98),
    "Style_A": (-24.96, 48.93),
    "Style_B": (-23.76, 46.01),
}
"""Least and largest sample of each family's gathers as OpenFWI's dataset_config.json has them (github lanl/OpenFWI)."""


class InputTransform(nn.Module):
    """Gathers as recorded to what a network reads: fewer samples, a compressed range, unit scale.

    Every `step`-th sample is kept: the wavelet has next to nothing above three times its peak frequency (45 Hz for
    OpenFWI), so 4 ms lose nothing. Then the range, and a division by the rms that the training data has at each time:
    late arrivals count as much as early ones. "official" instead brings all of a family's samples to -1..1.

    Attributes:
        step: Samples of the survey from one that is kept to the next.
        samples: Samples that are kept.
        centre: What is subtracted after the range: 0 unless `amplitudes` is "official".
        scale: What it is then divided by, (samples, 1): a buffer, so that a checkpoint alone suffices.

    Args:
        survey: The survey of the gathers.
        time_step: Seconds between the samples that the network reads, a multiple of the survey's. Default 0.004.
        amplitudes: "log1p", the official transform of OpenFWI, sign(x) log1p(|x|) (Deng et al., 2022,
            arXiv:2111.02926), which lets the reflections be seen beside the direct wave; "official", the same, then
            2 (x - least) / (most - least) - 1 with the published extremes of a family, as the networks that come with
            OpenFWI read it; "trace", every trace over its own rms, which forgets amplitudes between traces; or "raw".
            Default "log1p".
        official_family: The family of "official". Default None: the widest extremes of the ten, those of CurveVel_B.

    Raises:
        UserError: If `time_step` is not a multiple of the survey's or too long for its wavelet, `amplitudes` is none of
            these, or `official_family` none of the ten or given without "official".
    """

    scale: Tensor

    def __init__(
        self,
        survey: Survey,
        time_step: float = 0.004,
        amplitudes: str = "log1p",
        official_family: str | None = None,
    ) -> None:
        super().__init__()
        if amplitudes not in RANGES:
            raise UserError(f"model.amplitudes must be {', '.join(RANGES[:-1])} or {RANGES[-1]}, got {amplitudes!r}.")
        self.amplitudes = amplitudes
        self.survey = survey
        self.step = survey.thinning("model.time_step", time_step)
        self.samples = survey.thinned(self.step)[1]
        self.centre, half_range = 0.0, 1.0
        if amplitudes == "official":
            self.centre, half_range = _official(official_family)
        elif official_family is not None:
            raise UserError(
                f"model.official_family={official_family} is for model.amplitudes=official, and it is {amplitudes}."
            )
        self.register_buffer("scale", torch.full((self.samples, 1), half_range))

    @property
    def fitted(self) -> bool:
        """Whether the scale is that of the training data."""
        return self.amplitudes != "official"

    def compress(self, gathers: Tensor) -> Tensor:
        """The transform without its scale: (batch, shots, time, receivers) to (batch, shots, samples, receivers).

        Records that were thinned to the model's time step before are taken as they are.
        """
        kept = (gathers if gathers.shape[-2] == self.samples else gathers[..., :: self.step, :]).float()
        if self.amplitudes in ("log1p", "official"):
            return kept.sign() * kept.abs().log1p()
        if self.amplitudes == "trace":
            rms = kept.square().mean(dim=2, keepdim=True).sqrt()
            return kept / rms.clamp_min(torch.finfo(torch.float32).tiny ** 0.5)  # a dead trace stays zero
        return kept

    @torch.no_grad()
    def mean_squares(self, gathers: Tensor) -> Tensor:
        """Mean square of each sample's compressed records at each time.

        Args:
            gathers: (batch, shots, time, receivers) as recorded.

        Returns:
            (batch, samples) float32. Their mean over a data set is what `fit` takes: they can be added up in any order.
        """
        return self.compress(gathers).square().mean(dim=(1, 3), dtype=torch.float64).float()

    @torch.no_grad()
    def fit(self, mean_squares: Tensor) -> None:
        """Take the scale from training data, where it is taken from data at all.

        Args:
            mean_squares: Mean over the samples of what `mean_squares` gives, (samples,).
        """
        if self.fitted:
            deviation = mean_squares.sqrt()
            # A floor: row 999 is stored as zeros in some families, and only the source's trace lives in the first rows.
            self.scale.copy_(deviation.clamp_min(0.1 * deviation.max())[:, None])

    def forward(self, gathers: Tensor) -> Tensor:
        """(batch, shots, time, receivers) as recorded to (batch, shots, samples, receivers) of unit scale."""
        compressed = self.compress(gathers)
        return (compressed - self.centre if self.centre else compressed) / self.scale


def _official(family: str | None) -> tuple[float, float]:
    """Centre and half width of the range that a family's gathers have after sign(x) log1p(|x|).

    Raises:
        UserError: If it is none of the ten families.
    """
    if family is not None and family not in EXTREMES:
        raise UserError(f"model.official_family must be null or one of {', '.join(EXTREMES)}, got {family!r}.")
    chosen = EXTREMES.values() if family is None else [EXTREMES[family]]
    least, most = -math.log1p(-min(low for low, _ in chosen)), math.log1p(max(high for _, high in chosen))
    return (most + least) / 2, (most - least) / 2
