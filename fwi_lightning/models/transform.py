"""What becomes of gathers before a network reads them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey

RANGES = ("log1p", "trace", "raw")


class InputTransform(nn.Module):
    """Gathers as recorded to what a network reads: fewer samples, a compressed range, unit scale.

    Every `step`-th sample is kept: the wavelet has next to nothing above three times its peak frequency (45 Hz for
    OpenFWI), so 4 ms lose nothing. Then the range, and a division by the standard deviation that the training data has
    at each time: late arrivals count as much as early ones.

    Args:
        survey: The survey of the gathers.
        time_step: Seconds between the samples that the network reads, a multiple of the survey's. Default 0.004.
        amplitudes: "log1p", the official transform of OpenFWI, sign(x) log1p(|x|) (Deng et al., 2022,
            arXiv:2111.02926), which lets the reflections be seen beside the direct wave; "trace", every trace over its
            own rms, which forgets amplitudes between traces; or "raw". Default "log1p".

    Raises:
        UserError: If `time_step` is not a multiple of the survey's or too long for its wavelet, or `amplitudes` is
            none of these.
    """

    scale: Tensor

    def __init__(self, survey: Survey, time_step: float = 0.004, amplitudes: str = "log1p") -> None:
        super().__init__()
        if amplitudes not in RANGES:
            raise UserError(f"model.amplitudes must be {', '.join(RANGES[:-1])} or {RANGES[-1]}, got {amplitudes!r}.")
        self.amplitudes = amplitudes
        self.step = round(time_step / survey.time_step)
        if self.step < 1 or not np.isclose(self.step * survey.time_step, time_step):
            raise UserError(
                f"model.time_step must be a multiple of the survey's {survey.time_step:g} s, got {time_step:g} s."
            )
        if time_step * 6 * survey.frequency > 1:
            # A Ricker wavelet is down to a hundredth of its peak at three times its peak frequency.
            raise UserError(
                f"model.time_step={time_step:g} s is too long for a wavelet that ends at {3 * survey.frequency:g} Hz: "
                f"at most {1 / (6 * survey.frequency):.3g} s."
            )
        self.samples = -(-survey.samples // self.step)
        self.register_buffer("scale", torch.ones(self.samples, 1))

    def compress(self, gathers: Tensor) -> Tensor:
        """The transform without its scale: (batch, shots, time, receivers) to (batch, shots, samples, receivers)."""
        kept = gathers[..., :: self.step, :].float()
        if self.amplitudes == "log1p":
            return kept.sign() * kept.abs().log1p()
        if self.amplitudes == "trace":
            rms = kept.square().mean(dim=2, keepdim=True).sqrt()
            return kept / rms.clamp_min(torch.finfo(torch.float32).tiny ** 0.5)  # a dead trace stays zero
        return kept

    @torch.no_grad()
    def fit(self, gathers: Tensor) -> None:
        """Take the scale from training gathers, (batch, shots, time, receivers)."""
        deviation = self.compress(gathers).square().mean(dim=(0, 1, 3)).sqrt()
        # A floor: row 999 is stored as zeros in some families, and only the source's trace lives in the first rows.
        self.scale.copy_(deviation.clamp_min(0.1 * deviation.max())[:, None])

    def forward(self, gathers: Tensor) -> Tensor:
        """(batch, shots, time, receivers) as recorded to (batch, shots, samples, receivers) of unit scale."""
        return self.compress(gathers) / self.scale
