"""Seconds that the forward simulation takes for a sample, beside the same scheme in NumPy.

    uv run python benchmarks/simulator.py

prints the figures and writes them to benchmarks/simulator.json. Each figure is the best of several runs, so that
other work on the machine disturbs it least; what was compiled or loaded on the first call is not counted.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import simulate
from fwi_lightning.survey import OPENFWI, Survey

RESULT = Path(__file__).with_suffix(".json")


def simulate_with_numpy(velocity: NDArray[np.float32], survey: Survey) -> NDArray[np.float32]:
    """All shots over a (depth, width) map at once, float32, np.roll for every neighbour."""
    dt, dx, nbc = survey.time_step, survey.spacing, survey.sponge
    padded = np.pad(velocity, nbc, mode="edge")
    alpha = ((padded * np.float32(dt)) / np.float32(dx)) ** 2
    a = (nbc - 1) * dx
    strip = 3 * padded.min() * np.log(1e7) / (2 * a) * (np.arange(nbc) * dx / a) ** 2
    sides = np.concatenate([strip[::-1], np.zeros(survey.grid[1]), strip])
    damping = np.tile(sides, (len(padded), 1))
    damping[:nbc, nbc:-nbc], damping[-nbc:, nbc:-nbc] = strip[::-1, None], strip[:, None]
    kappa = (damping * dt).astype(np.float32)
    centre, previous = 2 - 5 * alpha - kappa, 1 - kappa

    wavelet = survey.wavelet().astype(np.float32)
    source = np.arange(survey.shots), nbc + survey.shot_row, nbc + np.array(survey.shot_columns)
    force = (padded[source[1:]] * np.float32(dt)) ** 2
    receivers = slice(None), nbc + survey.receiver_row, nbc + np.array(survey.receiver_columns)
    p = p_previous = np.zeros((survey.shots, *padded.shape), np.float32)
    gathers = np.empty(survey.gathers_shape, np.float32)
    for it in range(survey.samples):
        at_1 = np.roll(p, 1, 1) + np.roll(p, -1, 1) + np.roll(p, 1, 2) + np.roll(p, -1, 2)
        at_2 = np.roll(p, 2, 1) + np.roll(p, -2, 1) + np.roll(p, 2, 2) + np.roll(p, -2, 2)
        laplacian = np.float32(4 / 3) * at_1 - np.float32(1 / 12) * at_2
        p_next = centre * p - previous * p_previous + alpha * laplacian
        p_next[source] += force * wavelet[it]
        gathers[:, it] = p_next[receivers]
        p_previous, p = p, p_next
    return gathers


def best_of(runs: int, function: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(runs):
        start = clock()
        function()
        times.append(clock() - start)
    return min(times)


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Measure, print, write."""
    maps = {family: torch.from_numpy(draw(family, 1, seed=0))[0] for family in FAMILIES}
    four = torch.from_numpy(draw("CurveFault_B", 4, seed=0))
    one = four[0]
    start = time.perf_counter()
    simulate(one)
    first_call = time.perf_counter() - start

    plain = simulate_with_numpy(one[0].numpy(), OPENFWI)
    error = np.sqrt(np.mean((simulate(one)[0].numpy() - plain) ** 2) / np.mean(plain**2))
    seconds = {
        "one sample": best_of(40, lambda: simulate(one)),
        "batch of 4, per sample": best_of(20, lambda: simulate(four)) / 4,
        "NumPy float32, one sample": best_of(3, lambda: simulate_with_numpy(one[0].numpy(), OPENFWI)),
    }
    processor_seconds = best_of(10, lambda: simulate(four), time.process_time) / 4
    families = {family: best_of(10, lambda m=m: simulate(m)) for family, m in maps.items()}  # type: ignore[misc]
    result = {
        "command": "uv run python benchmarks/simulator.py",
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "threads": numba.get_num_threads(),
        "load average": round(os.getloadavg()[0], 1),
        "sample": "5 shots, 1000 steps, 70 x 70 cells and 120 cells of sponge; CurveFault_B",
        "seconds": {name: round(value, 4) for name, value in seconds.items()},
        "times as fast as NumPy": {
            name: round(seconds["NumPy float32, one sample"] / seconds[name])
            for name in ("one sample", "batch of 4, per sample")
        },
        "processor seconds on all cores, per sample": round(processor_seconds, 4),
        "seconds, one sample of each family": {name: round(value, 4) for name, value in families.items()},
        "seconds, first call of a process": round(first_call, 2),
        "rms difference to NumPy float32, relative": float(f"{error:.1e}"),
    }
    text = json.dumps(result, indent=2)
    print(text)
    RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
