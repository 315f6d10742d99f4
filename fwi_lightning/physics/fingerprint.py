"""What a record gives away about its making: the velocity at its shots, and whether the survey made it.

The scheme (see `fwi_lightning.physics.scheme`) injects (v dt)^2 w[0] into a field at rest and then reads the receivers:
sample 0 is zero at all of them but the shot's own, and with alpha = (v dt / dx)^2 that one holds

    p_0 = alpha dx^2 w[0].

A step later the cells around the shot are still at rest, and inside the map nothing is damped. So sample 1 there is
p_1 = (2 - 5 alpha) p_0 + alpha dx^2 w[1], and

    p_1 / p_0 = 2 + w[1] / w[0] - 5 alpha.

The record tells alpha twice. A gain changes p_0 but not the ratio, and a shift, a filter or noise leave neither: where
the two agree, the velocity at the shot is known without any inversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fwi_lightning.physics.scheme import ROUGHEST
from fwi_lightning.survey import Survey

SLOWEST = 100.0
"""m/s: nothing in the ground is slower. The fastest is what the scheme can carry, alpha = 3/8."""

ROUNDING = {torch.float32: 4e-7, torch.float16: 1e-3}
"""Relative error that rounding leaves in p_1 / p_0, by the type the record was stored in (observed: 1.1e-7, 7e-4)."""

ARRIVED = 0.2
"""Part of a shot's largest amplitude that noise does not reach and the direct wave soon does."""

DETUNED = 1.4
"""Factor between the peak of a spectrum and the survey's frequency from which they differ (2-D records: 0.8 to 1)."""


class _Start(NamedTuple):
    """Alpha at each shot by amplitude and by ratio, (batch, shots): NaN unless sample 0 lives at one receiver alone."""

    by_amplitude: Tensor
    by_ratio: Tensor
    rounding: Tensor
    """Largest difference between the two that rounding explains."""
    trusted: Tensor
    """Whether both agree and are plausible."""


@torch.no_grad()
def source_velocity(gathers: Tensor, survey: Survey) -> Tensor:
    """The velocity in the cell of each shot, read off the first two samples of its own receiver.

    It is NaN where it cannot be trusted, that is unless

    - a receiver stands in the shot's cell, and the record has two samples, not rounded to bfloat16,
    - sample 0 is exactly zero at all other receivers (noise, most filters and shifts end that),
    - its sign is the wavelet's and the velocity lies between `SLOWEST` and what the scheme can carry,
    - sample 1 gives the same alpha within `ROUNDING` (a gain, other filters and other wavelets do not).

    Records that were stored in float16, told by samples 0 and 1 having no more digits than that, are read too. Their
    velocities are good to 1 m/s, but a gain of up to 3 % goes unnoticed in them (22 m/s at 1500 m/s, less above). In
    float32 rounding and an unnoticed gain together stay below 0.01 m/s.

    Records that the package's own `simulate` thinned (`Survey.thinned`) have sample 0 and no longer sample 1. Nobody
    changed their gain: sample 0 alone is believed.

    Args:
        gathers: (batch, shots, time, receivers) as recorded, before any transform; any floating-point type and device.
        survey: The survey.

    Returns:
        (batch, shots) float32 in m/s.
    """
    receivers, present = _receivers_of_shots(survey, gathers.device)
    start = _read_start(gathers, receivers.expand(gathers.shape[:2]), survey)
    velocity = start.by_amplitude.sqrt() * (survey.spacing / survey.time_step)
    thinned = gathers.shape[2] != survey.samples
    trusted = _plausible(start.by_amplitude, survey) if thinned else start.trusted
    return velocity.where(trusted & present, torch.nan)


@dataclass(frozen=True)
class Fingerprint:
    """What the records of a batch tell about their making; a first axis of samples everywhere.

    Attributes:
        survey: The survey they are compared with.
        silent: (batch,) whether the record is all zeros; nothing else counts then.
        shot_columns: (batch, shots) column where each shot is first recorded.
        other_survey: (batch,) whether one of them is not the survey's. Shots without a receiver of their own are not
            judged.
        onset: (batch,) sample at which the wavelet begins, 0 as simulated: counted in leading zeros or read off
            sample 0, else estimated to a few samples from the direct wave. NaN if no shot has a receiver of its own.
        exact: (batch,) whether samples 0 and 1 are those of a simulated record, at the columns found.
        gain: (batch,) factor by which the record was multiplied, 1 as simulated, NaN unless samples 0 and 1 tell it.
        frequency: (batch,) peak of the spectrum where the shots are first recorded, Hz. NaN if the record is no
            longer than the wavelet.
        last_sample_zero: (batch,) whether the last time sample is zeros, as some families of OpenFWI store it.
    """

    survey: Survey
    silent: Tensor
    shot_columns: Tensor
    other_survey: Tensor
    onset: Tensor
    exact: Tensor
    gain: Tensor
    frequency: Tensor
    last_sample_zero: Tensor

    def differences(self) -> list[str]:
        """A sentence for each way in which the records differ from those of the survey; none for simulated ones."""
        heard = ~self.silent
        if not heard.any():
            return ["the record is silent: all samples looked at hold zeros only"]
        ratio = self.frequency / self.survey.frequency
        detuned = heard & ((ratio > DETUNED) | (ratio < 1 / DETUNED))
        late, early = heard & (self.onset > 0), heard & (self.onset < 0)
        unexplained = heard & ~self.exact & ~detuned & ~late & ~early & self.onset.isfinite()
        scaled = unexplained & self.gain.isfinite()
        found = self.shot_columns[int(self.other_survey.int().argmax())].tolist()
        sentences = [
            (
                self.other_survey,
                f"the shots stand at columns {_listed(found)}, the survey's at {_listed(self.survey.shot_columns)}",
            ),
            (
                late,
                f"the wavelet begins at sample {_median(self.onset, late):.0f}, the survey's at 0: the record was "
                "shifted or filtered",
            ),
            (
                early,
                f"the wavelet begins about {-_median(self.onset, early):.0f} samples before the record: it was cut or "
                "filtered",
            ),
            (
                detuned,
                f"the spectrum at the shots peaks at {_median(self.frequency, detuned):.1f} Hz, the survey's wavelet "
                f"at {self.survey.frequency:g} Hz: it is another wavelet or time step, or the record was filtered",
            ),
            (
                scaled,
                f"the record was multiplied by about {_median(self.gain, scaled):.6g}, or its cells are not of "
                f"{self.survey.spacing:g} m",
            ),
            (
                unexplained & ~scaled,
                "the first samples are not those of a simulated record (noise, a filter, a cut, a varying gain): they "
                "do not tell the velocity at the shots",
            ),
        ]
        return [sentence + _share(mask, heard) for mask, sentence in sentences if mask.any()]


def fingerprint(gathers: Tensor, survey: Survey) -> Fingerprint:
    """Take the fingerprint of records and compare it with that of a survey.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        survey: The survey that is said to have recorded them.

    Returns:
        The fingerprint; its `differences()` are sentences.
    """
    gathers = gathers.float()
    receivers, present = _receivers_of_shots(survey, gathers.device)
    loudest = gathers.abs().amax(dim=3)  # (batch, shots, time)
    arrival = (loudest > ARRIVED * loudest.amax(dim=2, keepdim=True)).int().argmax(dim=2)
    # Where sample 0 lives; where it does not, the loudest receiver when the direct wave arrives.
    alone = _lives_alone(gathers[:, :, 0], survey)
    when = arrival.masked_fill(alone, 0)[:, :, None, None].expand(-1, -1, 1, survey.receivers)
    found = gathers.gather(2, when)[:, :, 0].abs().argmax(dim=2)
    start = _read_start(gathers, found, survey)
    silent = loudest.amax(dim=(1, 2)) == 0
    return Fingerprint(
        survey=survey,
        silent=silent,
        shot_columns=torch.tensor(survey.receiver_columns, device=gathers.device)[found],
        other_survey=((found != receivers) & present).any(dim=1) & ~silent,
        onset=_onset(loudest, arrival, alone, survey).where(present, torch.nan).nanmedian(dim=1).values,
        exact=(start.trusted | ~present).all(dim=1) & present.any(),
        gain=_gain(start, survey),
        frequency=_peak_frequency(gathers, found, survey),
        last_sample_zero=loudest[:, :, -1].amax(dim=1) == 0,
    )


def _lives_alone(sample: Tensor, survey: Survey) -> Tensor:
    """Whether a sample, (batch, shots, receivers), is not zero in one column alone, (batch, shots)."""
    columns = survey.receiver_columns
    first = torch.tensor([columns.index(column) == k for k, column in enumerate(columns)], device=sample.device)
    return ((sample != 0) & first).sum(dim=2) == 1


def _receivers_of_shots(survey: Survey, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each shot the number of the receiver in its cell, and whether there is one that can tell: (shots,) each."""
    shots = torch.tensor(survey.shot_columns, device=device)
    same = shots[:, None] == torch.tensor(survey.receiver_columns, device=device)
    possible = survey.shot_row == survey.receiver_row and survey.samples > 1
    return same.int().argmax(dim=1), same.any(dim=1) & possible


def _read_start(gathers: Tensor, receivers: Tensor, survey: Survey) -> _Start:
    """What samples 0 and 1 say at one receiver of each shot, (batch, shots) numbers of receivers."""
    if survey.samples < 2 or gathers.dtype == torch.bfloat16:
        nothing = torch.full(receivers.shape, torch.nan, device=gathers.device)
        return _Start(nothing, nothing, nothing, nothing > 0)
    wavelet = survey.wavelet()
    samples = gathers[:, :, :2].float()
    here = samples.gather(3, receivers[:, :, None, None].expand(-1, -1, 2, 1))[..., 0]
    alone = _lives_alone(samples[:, :, 0], survey)
    by_amplitude = (here[..., 0] / (float(wavelet[0]) * survey.spacing**2)).where(alone, torch.nan)
    ratio = here[..., 1] / here[..., 0]
    by_ratio = ((2 + float(wavelet[1] / wavelet[0]) - ratio) / 5).where(alone, torch.nan)
    half = (here == here.half().float()).all(dim=2)
    rounding = torch.where(half, ROUNDING[torch.float16], ROUNDING[torch.float32]) * ratio.abs() / 5
    agree = (by_amplitude - by_ratio).abs() <= rounding
    return _Start(by_amplitude, by_ratio, rounding, agree & _plausible(by_amplitude, survey))


def _plausible(alpha: Tensor, survey: Survey) -> Tensor:
    return (alpha >= (SLOWEST * survey.time_step / survey.spacing) ** 2) & (alpha < 4 / ROUGHEST)


def _gain(start: _Start, survey: Survey) -> Tensor:
    """The factor between amplitude and ratio that is common to the shots of a record, (batch,); NaN if none is."""
    gains = (start.by_amplitude / start.by_ratio).where(_plausible(start.by_ratio, survey), torch.nan)
    gains = gains.masked_fill(start.trusted, 1.0)
    gain = gains.nanmedian(dim=1, keepdim=True).values
    apart = (gains / gain - 1).abs() > 2 * start.rounding / start.by_ratio  # both have errors
    return gain[:, 0].masked_fill(apart.any(dim=1), torch.nan)


def _onset(loudest: Tensor, arrival: Tensor, alone: Tensor, survey: Survey) -> Tensor:
    """The sample at which each shot's wavelet begins, (batch, shots) float32."""
    leading = (loudest > 0).int().argmax(dim=2).float()
    # In the shot's own cell the pressure rises as the running sum of the wavelet does, whatever the velocity: to two
    # samples of OpenFWI's 147. Zero-phase filters move it by as many, so that less than a twentieth is no shift.
    pulse = np.abs(np.cumsum(survey.wavelet()))
    estimate = arrival.float() - int(np.argmax(pulse > ARRIVED * pulse.max()))
    estimate = estimate.masked_fill(estimate.abs() <= np.count_nonzero(survey.wavelet()) / 20, 0.0)
    return estimate.masked_fill(alone, 0.0).where(leading == 0, leading)


def _peak_frequency(gathers: Tensor, receivers: Tensor, survey: Survey) -> Tensor:
    """Where the mean spectrum of one receiver of each shot is largest, (batch,) in Hz."""
    traces = gathers.gather(3, receivers[:, :, None, None].expand(-1, -1, survey.samples, 1))[..., 0]
    padded = 4 * survey.samples
    spectrum = torch.fft.rfft(traces, padded).abs().mean(dim=1)
    peak = spectrum.argmax(dim=1) / (padded * survey.time_step)
    return peak if survey.wavelet()[-1] == 0 else torch.full_like(peak, torch.nan)


def _median(values: Tensor, mask: Tensor) -> float:
    return float(values[mask].median()) if mask.any() else 0.0


def _listed(columns: list[int] | tuple[int, ...]) -> str:
    return ", ".join(map(str, columns))


def _share(mask: Tensor, heard: Tensor) -> str:
    """In how many samples it is so, if not in all."""
    return "" if torch.equal(mask, heard) else f" (in {int(mask.sum())} of the {len(mask)} samples looked at)"
