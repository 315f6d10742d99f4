"""Whether gathers are those of their velocity: looked at in every sample, simulated where it matters.

Clean gathers tell the velocity at their shots (`physics.fingerprint`), which costs next to nothing, so that every
sample is compared with its map there. Those that disagree, or do not tell what the others of their family tell, are
simulated, with a few others of each family.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch
from numpy.typing import NDArray

from fwi_lightning.data.exploration.problems import Problem
from fwi_lightning.data.exploration.scan import Scan
from fwi_lightning.data.exploration.signatures import TINY
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError
from fwi_lightning.physics import simulate
from fwi_lightning.physics.fingerprint import fingerprint
from fwi_lightning.physics.misfit import relative_rms
from fwi_lightning.survey import Survey

BELONGS = 0.05
"""Relative rms up to which gathers are those of their map: 1e-5 as simulated, 5e-4 in float16, 0.14 one sample late."""

EXPLAINED = 0.1
"""Relative rms that a shift and a gain may leave: what entered and left the record at its ends, parts of a sample."""

AT_SHOTS = 5.0
"""m/s: difference at the shots from which a sample is suspected; float16 leaves 1 m/s."""

MOST_SUSPECTS = 64
"""Suspected samples that are simulated; of a file whose rows are all shifted the first ones tell enough."""

TRIED = 3
"""Other maps that are simulated for gathers that do not fit their own."""

LOOKED_AT = 8
"""Samples that stand for the whole data set where it is compared with the survey."""


@dataclass(frozen=True)
class Comparison:
    """Recorded gathers beside those that their velocity gives.

    Attributes:
        family: Family of the sample.
        file: File of the gathers.
        row: Row in it.
        rms: Relative rms difference, without the last time sample.
        suspected: Whether the sample was chosen because something was odd, and not to stand for its family.
    """

    family: str
    file: str
    row: int
    rms: float
    suspected: bool


class Pairs:
    """The sound samples with a sound map, by number of the sample in the scan.

    Attributes:
        samples: (pairs,) their numbers.
        told: (pairs, shots) velocity at the shots by the gathers, NaN where they do not tell, m/s.
        at_shots: (pairs, shots) velocity at the shots in the map, m/s.
    """

    def __init__(self, scan: Scan) -> None:
        self.samples = np.flatnonzero(scan.gathers.sound & scan.velocity.sound)
        self.told = scan.gathers.at_shots[self.samples]
        self.at_shots = scan.velocity.at_shots[self.samples]
        self.families = np.array([scan.part(sample)[0].family for sample in self.samples.tolist()], str)

    def suspects(self) -> NDArray[np.bool_]:
        """(pairs,) whether the gathers tell other velocities than the map has, or none though their family does."""
        suspected = np.nan_to_num(np.abs(self.told - self.at_shots)).max(axis=1, initial=0.0) > AT_SHOTS
        silent: NDArray[np.bool_] = np.isnan(self.told).min(axis=1, initial=True)
        for family in np.unique(self.families):
            members = self.families == family
            if silent[members].mean() < 0.5:
                suspected |= members & silent
        return suspected


def compare(scan: Scan, per_family: int) -> tuple[list[Comparison], list[Problem]]:
    """Simulate some samples and compare.

    Args:
        scan: The samples.
        per_family: Samples that stand for each family, spread evenly; 0 simulates nothing, suspected ones neither.

    Returns:
        What was compared, and a problem for each sample that is not what its velocity gives.
    """
    pairs = Pairs(scan)
    suspected = pairs.suspects()
    odd = np.flatnonzero(suspected).tolist()
    most = MOST_SUSPECTS if per_family else 0
    chosen = _spread(pairs.families, ~suspected, per_family) + odd[:most]
    comparisons, problems = [], []
    if chosen:
        with Progress("simulating", 0, len(chosen)) as progress:
            for pair in chosen:
                rms, sentence = _compare(scan, pairs, pair)
                family = str(pairs.families[pair])
                place = scan.file(int(pairs.samples[pair]))
                comparisons.append(Comparison(family, *place, rms, bool(suspected[pair])))
                if sentence:
                    problems.append(Problem("does not belong", sentence, *place, family))
                progress.advance(1)
    for pair in odd[most:]:
        place = scan.file(int(pairs.samples[pair]))
        problems.append(Problem("does not belong", _suspicion(pairs, pair), *place, str(pairs.families[pair])))
    return comparisons, problems


def _compare(scan: Scan, pairs: Pairs, pair: int) -> tuple[float, str]:
    """Relative rms of a pair (NaN if its map cannot be simulated), and what is wrong with it ("" if nothing is)."""
    sample = int(pairs.samples[pair])
    recorded = scan.read_gathers(sample)
    try:
        simulated = _simulate(scan, sample)
    except UserError as error:
        return np.nan, f"the velocity cannot be simulated: {error}"
    rms = _rms(recorded, simulated)
    return rms, _explain(scan, pairs, pair, recorded, simulated, rms) if rms > BELONGS else ""


def compare_with_survey(scan: Scan) -> list[Problem]:
    """Compare the records of a few samples with what the survey would have recorded.

    Args:
        scan: The samples.

    Returns:
        A problem for each way in which they differ.
    """
    pairs = Pairs(scan)
    odd = set(pairs.samples[pairs.suspects()].tolist())
    usual = [sample for sample in scan.gathers.samples.tolist() if sample not in odd]
    if not usual:
        return []
    places = np.unique(np.linspace(0, len(usual) - 1, LOOKED_AT).astype(int)).tolist()
    gathers = torch.from_numpy(np.stack([scan.read_gathers(usual[place]) for place in places]))
    return [
        Problem("other survey", f"{sentence}: look whether physics= is the survey that recorded it.")
        for sentence in fingerprint(gathers, scan.survey).differences()
    ]


def _spread(families: NDArray[np.str_], allowed: NDArray[np.bool_], most: int) -> list[int]:
    """At most `most` of each family, spread evenly over those allowed."""
    chosen = []
    for family in np.unique(families):
        members = np.flatnonzero((families == family) & allowed)
        places = np.unique(np.linspace(0, len(members) - 1, min(most, len(members))).round().astype(int))
        chosen += members[places].tolist()
    return chosen


def _simulate(scan: Scan, sample: int) -> NDArray[np.float32]:
    """The gathers that the map of a sample gives, (shots, time, receivers)."""
    with torch.no_grad():
        return simulate(torch.from_numpy(scan.read_velocity(sample)), scan.survey).numpy()


def _rms(recorded: NDArray[np.float32], simulated: NDArray[np.float32]) -> float:
    return float(relative_rms(torch.from_numpy(recorded)[None], torch.from_numpy(simulated)[None])[0])


def _explain(
    scan: Scan, pairs: Pairs, pair: int, recorded: NDArray[np.float32], simulated: NDArray[np.float32], rms: float
) -> str:
    """What most likely happened to gathers that differ from those of their map."""
    shift, gain, rest = match(recorded, simulated)
    if rest <= EXPLAINED:
        return _changed(shift, gain, rms, scan.survey)
    own, _ = scan.file(int(pairs.samples[pair]), velocity=True)
    for other in _candidates(scan, pairs, pair):
        sample = int(pairs.samples[other])
        try:
            fits = _rms(recorded, _simulate(scan, sample)) <= BELONGS
        except UserError:
            continue
        if fits:
            file, row = scan.file(sample, velocity=True)
            place = f"row {row} of the same file" if file == own else f"{file}, row {row}"
            return f"the gathers belong to the velocity in {place}, not to that in their own row: pair them again."
    return (
        f"the gathers differ by {rms:.2g} of their rms from what their velocity gives, and a shift or a gain does not "
        "explain it: pair them again, or look whether they were filtered or are noisy."
    )


def match(recorded: NDArray[np.float32], simulated: NDArray[np.float32]) -> tuple[int, float, float]:
    """The shift in time and the gain that bring simulated gathers closest to recorded ones.

    Args:
        recorded: (shots, time, receivers).
        simulated: The same shape.

    Returns:
        Time samples by which the recorded ones are late, the factor by which they are louder, and the relative rms that
        is left.
    """
    time = recorded.shape[1]
    length = scipy.fft.next_fast_len(2 * time, real=True)
    spectra = (scipy.fft.rfft(gathers, length, axis=1) for gathers in (recorded, simulated))
    product = np.einsum("sfr,sfr->f", next(spectra), next(spectra).conj())
    correlation = np.abs(scipy.fft.irfft(product, length))
    correlation[time // 2 : length - time // 2] = 0.0
    shift = int(correlation.argmax())
    shift -= length if shift > time // 2 else 0
    moved = np.zeros_like(simulated)
    if shift >= 0:
        moved[:, shift:] = simulated[:, : time - shift]
    else:
        moved[:, :shift] = simulated[:, -shift:]
    gain = float(np.vdot(recorded, moved) / max(float(np.vdot(moved, moved)), TINY))
    return shift, gain, _rms(recorded, gain * moved)


def _changed(shift: int, gain: float, rms: float, survey: Survey) -> str:
    """Gathers that are those of their map but for a shift or a gain."""
    ways = []
    if shift:
        late = "late" if shift > 0 else "early"
        milliseconds = abs(shift) * survey.time_step * 1000
        ways.append(f"{abs(shift)} time sample{'s' if abs(shift) > 1 else ''} ({milliseconds:g} ms) {late}")
    if abs(gain - 1) > EXPLAINED / 2:
        ways.append(f"{gain:.3g} times as loud")
    if not ways:
        return (
            f"the gathers differ by {rms:.2g} of their rms from what their velocity gives: they are noisy or filtered."
        )
    return f"the gathers are those of their velocity, but {' and '.join(ways)}: put that right or remove the sample."


def _candidates(scan: Scan, pairs: Pairs, pair: int) -> Iterator[int]:
    """Pairs whose map may be that of the gathers: the same velocity at the shots, else the rows beside it."""
    places = scan.places[pairs.samples]
    own, row = places[pair].tolist()
    if np.isnan(pairs.told[pair]).all():
        for other in (pair - 1, pair + 1):
            if 0 <= other < len(places) and places[other, 0] == own:
                yield other
        return
    apart = np.nan_to_num(np.abs(pairs.at_shots - pairs.told[pair])).max(axis=1)
    fitting = np.flatnonzero(apart <= AT_SHOTS)
    part, there = places[fitting].T
    order = np.lexsort((np.abs(there - row), apart[fitting].round(), part != own))
    yield from fitting[order][:TRIED].tolist()


def _suspicion(pairs: Pairs, pair: int) -> str:
    """Why a sample is suspected that was not simulated."""
    if np.isnan(pairs.told[pair]).all():
        return (
            "the first time samples are not those of a simulated record as in the rest of the family (a shift, noise, "
            "a filter): look at it."
        )
    shot = int(np.nan_to_num(np.abs(pairs.told[pair] - pairs.at_shots[pair])).argmax())
    return (
        f"the gathers tell {pairs.told[pair, shot]:.0f} m/s at shot {shot} (counted from 0), where the map has "
        f"{pairs.at_shots[pair, shot]:.0f}: pair them again."
    )


def summarise(comparisons: Sequence[Comparison], family: str) -> tuple[int, float]:
    """Samples that stand for a family and were simulated, and the largest relative rms among them (NaN if none)."""
    found = [item.rms for item in comparisons if item.family == family and not item.suspected]
    return len(found), float(np.fmax.reduce(found)) if found else np.nan
