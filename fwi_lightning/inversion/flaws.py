"""What is wrong with a record, told from the record: dead traces, clipping, polarity, gain."""

from __future__ import annotations

import torch
from torch import Tensor

from fwi_lightning.physics.fingerprint import fingerprint
from fwi_lightning.survey import Survey

GAIN = 0.01
"""Relative difference of a gain from 1 above which it is said."""

OPPOSITE = -0.5
"""Correlation with the pulse at the shots below which a record's polarity is reversed."""

PLATEAU = 3
"""Neighbouring samples at a record's largest amplitude from which it is clipped: a wave's crest is one, rarely two."""


@torch.no_grad()
def find_flaws(gathers: Tensor, survey: Survey) -> list[list[str]]:
    """Words for what is wrong with each record.

    Args:
        gathers: (batch, shots, time, receivers) as recorded, finite.
        survey: The survey that is said to have recorded them.

    Returns:
        For each sample a list of: "dead shots" (a gather of zeros beside others that are not), "dead traces" (a trace
        of zeros with one farther from the shot that is not), "clipped" (the largest amplitude is held for `PLATEAU`
        samples), "reversed polarity" (the pulse at the shots has the other sign), "gain 2" (the record was multiplied,
        by more than `GAIN` off 1, or its cells have another size). None for a record of zeros.
    """
    loudest = gathers.abs().amax(dim=2)  # (batch, shots, receivers)
    heard = loudest.amax(dim=2) > 0
    silent = ~heard.any(dim=1)
    found = fingerprint(gathers, survey)
    opposite = _polarity(gathers, survey) < OPPOSITE
    words = []
    for row in range(len(gathers)):
        gain = float(found.gain[row])
        flags = {
            "dead shots": bool((~heard[row]).any()),
            "dead traces": bool(_dead(loudest[row], heard[row], survey).any()),
            "clipped": _clipped(gathers[row]),
            "reversed polarity": bool(opposite[row]) or gain < 0,
            f"gain {abs(gain):.3g}": abs(abs(gain) - 1) > GAIN,  # false for NaN
        }
        words.append([] if silent[row] else [name for name, flagged in flags.items() if flagged])
    return words


def _dead(loudest: Tensor, heard: Tensor, survey: Survey) -> Tensor:
    """Traces of zeros nearer to their shot than one that is alive, (shots, receivers)."""
    columns = torch.tensor(survey.receiver_columns)
    distance = (columns - torch.tensor(survey.shot_columns)[:, None]).abs()
    reached = distance.masked_fill(loudest == 0, -1).amax(dim=1, keepdim=True)
    return (loudest == 0) & (distance < reached) & heard[:, None]


def _clipped(record: Tensor) -> bool:
    full = record.abs() >= record.abs().max()
    return bool(full.unfold(1, PLATEAU, 1).all(dim=-1).any())


def _polarity(gathers: Tensor, survey: Survey) -> Tensor:
    """Correlation of the record at the shots with the pulse there, (batch,): the running sum of the wavelet.

    Its first 60 % hold the crest; what comes after, reflections from near the surface cross.
    """
    receivers = [survey.receiver_columns.index(c) if c in survey.receiver_columns else -1 for c in survey.shot_columns]
    shots = [shot for shot, receiver in enumerate(receivers) if receiver >= 0]
    if not shots:
        return gathers.new_zeros(len(gathers))
    pulse = torch.from_numpy(survey.wavelet()).float().cumsum(0)
    length = max(1, int(0.6 * int((survey.wavelet() != 0).sum())))
    traces = torch.stack([gathers[:, shot, :length, receivers[shot]] for shot in shots], dim=1)
    product = (traces * pulse[:length]).sum(dim=2)
    sizes = traces.square().sum(dim=2).sqrt() * pulse[:length].square().sum().sqrt()
    return (product / sizes.clamp_min(torch.finfo(torch.float32).tiny)).median(dim=1).values
