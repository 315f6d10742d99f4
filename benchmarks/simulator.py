"""Seconds that the simulation and its gradient take for a sample, beside NumPy and deepwave in the same run.

    uv run --group bench python benchmarks/simulator.py                  # CPU
    uv run --group bench python benchmarks/simulator.py --device cuda    # GPU: samples/s, share of its bandwidth

prints the figures and writes them to benchmarks/simulator.json. Each figure is the best of several runs, so that
other work on the machine disturbs it least; what was compiled or loaded on the first call is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numba
import numpy as np
import torch
from numpy.typing import NDArray

from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import illuminate, simulate
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


def deepwave_with(survey: Survey) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The propagator of deepwave for the same survey, or None if it is not installed.

    Fourth order, a PML of 20 cells: its grid is an eighth of OpenFWI's 310 x 310, and its records differ.
    """
    try:
        from deepwave import scalar
    except ImportError:
        return None
    shots, columns = survey.shots, survey.receiver_columns
    source = torch.tensor([[[survey.shot_row, column]] for column in survey.shot_columns])
    receivers = torch.tensor([[[survey.receiver_row, column] for column in columns]] * shots)
    amplitudes = torch.from_numpy(survey.wavelet()).float().repeat(shots, 1, 1)

    def propagate(velocity: torch.Tensor) -> torch.Tensor:
        device = velocity.device
        return scalar(
            velocity,
            survey.spacing,
            survey.time_step,
            source_amplitudes=amplitudes.to(device),
            source_locations=source.to(device),
            receiver_locations=receivers.to(device),
            accuracy=4,
            pml_width=20,
            pml_freq=survey.frequency,
        )[-1]

    return propagate


def differentiate(function: Callable[[torch.Tensor], torch.Tensor], velocity: torch.Tensor) -> None:
    """Simulation and gradient of the record's energy."""
    velocity = velocity.clone().requires_grad_()
    function(velocity).square().sum().backward()


def peak_memory(function: Callable[[], object]) -> float:
    """MB of anonymous memory that a call takes at its peak, beyond what was taken before."""

    def taken() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024

    before, peak, done = taken(), 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, taken())

    watcher = threading.Thread(target=watch)
    watcher.start()
    function()
    done.set()
    watcher.join()
    return max(peak - before, 0)


def measure_cpu() -> dict[str, object]:
    """Seconds and memory on the CPU, beside NumPy and, where it is installed, deepwave."""
    maps = {family: torch.from_numpy(draw(family, 1, seed=0))[0] for family in FAMILIES}
    four = torch.from_numpy(draw("CurveFault_B", 4, seed=0))[:, 0]
    one = four[0]
    start = time.perf_counter()
    simulate(one)
    first_call = time.perf_counter() - start
    start = time.perf_counter()
    differentiate(simulate, one)
    first_gradient = time.perf_counter() - start

    plain = simulate_with_numpy(one.numpy(), OPENFWI)
    error = np.sqrt(np.mean((simulate(one).numpy() - plain) ** 2) / np.mean(plain**2))
    seconds = {
        "one sample": best_of(40, lambda: simulate(one)),
        "batch of 4, per sample": best_of(20, lambda: simulate(four)) / 4,
        "gradient too, one sample": best_of(12, lambda: differentiate(simulate, one)),
        "gradient too, batch of 4, per sample": best_of(6, lambda: differentiate(simulate, four)) / 4,
        "with illumination, one sample": best_of(12, lambda: illuminate(one)),
        "NumPy float32, one sample": best_of(3, lambda: simulate_with_numpy(one.numpy(), OPENFWI)),
    }
    result: dict[str, object] = {
        "threads": numba.get_num_threads(),
        "load average": round(os.getloadavg()[0], 1),
        "sample": "5 shots, 1000 steps, 70 x 70 cells and 120 cells of sponge; CurveFault_B",
        "times as fast as NumPy": {
            name: round(seconds["NumPy float32, one sample"] / seconds[name])
            for name in ("one sample", "batch of 4, per sample")
        },
        "MB at the peak of a gradient, one sample": round(peak_memory(lambda: differentiate(simulate, one))),
        "MB at the peak of a gradient, batch of 4": round(peak_memory(lambda: differentiate(simulate, four))),
        "processor seconds on all cores, per sample": round(
            best_of(10, lambda: simulate(four), time.process_time) / 4, 4
        ),
        "seconds, one sample of each family": {
            name: round(best_of(10, lambda m=m: simulate(m)), 4)  # type: ignore[misc]
            for name, m in maps.items()
        },
        "seconds, first call of a process": round(first_call, 2),
        "seconds, first gradient of a process": round(first_gradient, 2),
        "rms difference to NumPy float32, relative": float(f"{error:.1e}"),
    }
    propagate = deepwave_with(OPENFWI)
    if propagate is not None:
        seconds["deepwave, one sample"] = best_of(5, lambda: propagate(one))
        seconds["deepwave, gradient too, one sample"] = best_of(3, lambda: differentiate(propagate, one))
        forward, both = seconds["deepwave, one sample"], seconds["deepwave, gradient too, one sample"]
        result["share of deepwave's time"] = {
            name: round(seconds[name] / (both if name.startswith("gradient") else forward), 3)
            for name in list(seconds)[:4]
        }
        result["MB at the peak of deepwave's gradient"] = round(peak_memory(lambda: differentiate(propagate, one)))
    return result | {"seconds": {name: round(value, 4) for name, value in seconds.items()}}


def measure_cuda(batch: int = 64) -> dict[str, object]:
    """Samples a second on the GPU, and how near to its memory's bandwidth that is."""
    maps = torch.from_numpy(np.concatenate([draw(family, batch // 10 + 1, seed=0) for family in FAMILIES]))[:, 0]
    maps = maps[torch.randperm(len(maps), generator=torch.Generator().manual_seed(0))[:batch]].cuda()
    large = torch.empty(2**29, device="cuda")

    def timed(function: Callable[[], object], runs: int = 5) -> float:
        def run() -> None:
            function()
            torch.cuda.synchronize()

        run()  # compiles, captures
        return best_of(runs, run)

    bandwidth = 2 * large.numel() * 4 / timed(lambda: large.clone())
    padded = (OPENFWI.grid[0] + 2 * OPENFWI.sponge) * (OPENFWI.grid[1] + 2 * OPENFWI.sponge)
    step = padded * 4 * OPENFWI.shots * OPENFWI.samples  # bytes of a sample that go through memory for one field
    here, there = simulate(maps[:4]).cpu(), simulate(maps[:4].cpu())
    result: dict[str, object] = {
        "batch": batch,
        "bandwidth of a copy, TB/s": round(bandwidth / 1e12, 2),
        "gathers against the CPU, relative rms": float(f"{((here - there).norm() / there.norm()).item():.1e}"),
    }
    # Forward: two fields read, one written. The gradient: again with the Laplacian written, then the adjoint field
    # with the Laplacian and the image read and the image written.
    for dtype in (torch.float32, torch.float64):
        cast = maps.to(dtype)
        for name, call, fields in (
            ("forward", lambda c=cast: simulate(c), 3),
            ("forward and gradient", lambda c=cast: differentiate(simulate, c), 3 + 3 + 4 + 6),
        ):
            rate = batch / timed(call)  # type: ignore[arg-type]
            limit = bandwidth / (fields * step * dtype.itemsize / 4)
            result[f"samples/s, {name}, {str(dtype).removeprefix('torch.')}"] = round(rate, 1)
            result[f"share of the bandwidth limit, {name}, {str(dtype).removeprefix('torch.')}"] = round(
                rate / limit, 2
            )
    propagate = deepwave_with(OPENFWI)
    if propagate is not None:
        result["deepwave, samples/s, forward"] = round(1 / timed(lambda: propagate(maps[0])), 1)
    return result


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda needs a CUDA device and none is found: leave it out to measure the CPU.")
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    if device == "cpu":
        row = {"machine": f"{processor()}, {os.cpu_count()} cores"} | measure_cpu()
    else:
        row = {"machine": torch.cuda.get_device_name()} | measure_cuda()
    result = {
        "command": "uv run --group bench python benchmarks/simulator.py [--device cuda]",
        "cpu": known.get("cpu", "not measured"),
        "cuda": known.get("cuda", "not measured"),
        device: row,
    }
    text = json.dumps(result, indent=2)
    print(text)
    RESULT.write_text(text + "\n")


if __name__ == "__main__":
    main()
