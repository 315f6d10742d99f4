"""What each model costs: parameters, operations, time and memory of a prediction and of a training step.

    uv run python benchmarks/models.py                       # CPU, Linux; ten minutes on two cores
    uv run python benchmarks/models.py --device cuda         # GPU; bfloat16 autocast and channels-last weights too
    uv run python benchmarks/models.py --only unet,precision # these rows, the others from benchmarks/models.json

prints the tables and writes benchmarks/models.json. Every figure comes from a process of its own. Times are the best
of several rounds; on a CPU they are processor time, summed over the threads, so that other work on the machine disturbs
them least: where nothing else runs, two threads take a little more than half of it. Memory is what tensors and
workspaces take at the peak, weights included: on a CPU the resident memory of a process whose allocator gives back at
once what is freed. glibc left to itself keeps some of it; what that makes is given beside it for the precisions.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from hydra import compose, initialize_config_dir
from simulator import processor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fwi_lightning.config import plain
from fwi_lightning.geology import FAMILIES
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.module import InversionModule

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".json")
BATCH = 16
"""Samples of a step, as in conf/data/synthetic.yaml."""
FEW = 4
"""Samples of a step for the times, on a CPU, of a model that needs more than `COSTLY` GFLOP for one."""
COSTLY = 5.0
THREADS = 2
PATIENCE = 4.0
"""Seconds spent on rounds of one figure, of which there are at least two, after one that does not count."""
ROWS = {path.stem: [f"model={path.stem}"] for path in sorted((ROOT / "conf" / "model").glob("*.yaml"))}
ROWS["caformer_spectral"] = ["model=caformer", "model.projector=spectral"]
PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
FREES_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Settings of glibc, under which resident memory is what is allocated."""
MB = 2**20

T = TypeVar("T")
Batch = dict[str, torch.Tensor]


def make(row: str, device: str) -> InversionModule:
    """The model of a row at its default width, in the module that trains it."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", [*ROWS[row], "loss=l1"])
    loss, optimizer = plain(config.loss), plain(config.optimizer)
    return InversionModule(plain(config.model), OPENFWI.to_dict(), loss, optimizer, None, FAMILIES).to(device)


def samples(count: int, device: str) -> Batch:
    """A batch of noise: its values do not change the cost."""
    batch = {"gathers": torch.randn(count, *OPENFWI.gathers_shape), "velocity": torch.full((count, 1, 70, 70), 3e3)}
    return {name: value.to(device) for name, value in batch.items()}


def trainer(module: InversionModule, batch: Batch, half: bool = False) -> Callable[[], None]:
    """A training step: forward, L1, backward, AdamW; the forward pass in bfloat16 if `half`."""
    optimizer = module.train().configure_optimizers()
    device = batch["gathers"].device.type

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = module.loss(module(batch["gathers"]), batch, OPENFWI)
        loss.backward()
        optimizer.step()

    return step


def predictor(module: InversionModule, batch: Batch, half: bool = False) -> Callable[[], None]:
    """A forward pass without gradients, in bfloat16 if `half`."""
    module.eval()
    device = batch["gathers"].device.type

    def forward() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=half):
            module(batch["gathers"])

    return forward


def fastest(function: Callable[[], object], device: str) -> tuple[float, int]:
    """Seconds of the best round, of the processors on a CPU, and how many rounds there were."""
    clock = time.perf_counter if device == "cuda" else time.process_time

    def once() -> float:
        start = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    once()  # loads code, chooses algorithms
    seconds: list[float] = []
    while len(seconds) < 2 or (sum(seconds) < PATIENCE and len(seconds) < 100):
        seconds.append(once())
    return min(seconds), len(seconds)


def measure_time(row: str, device: str) -> dict[str, Any]:
    """Parameters, operations and milliseconds a sample."""
    module = make(row, device)
    result: dict[str, Any] = {"parameters, M": round(sum(p.numel() for p in module.parameters()) / 1e6, 2)}
    # The counter knows the attention that is written out, not the fused one of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module.eval()(samples(1, device)["gathers"])
    operations = counter.get_total_flops() / 1e9
    result["GFLOP a sample, forward"] = round(operations, 2)
    count = FEW if device == "cpu" and operations > COSTLY else BATCH
    result["batch of the times"] = count
    batch = samples(count, device)
    variants = {"": (False, torch.contiguous_format)}
    if device == "cuda":
        variants[", channels last"] = (False, torch.channels_last)
        variants[", bf16 autocast"] = (True, torch.contiguous_format)
        variants[", bf16 autocast, channels last"] = (True, torch.channels_last)
    for name, (half, layout) in variants.items():
        module.model.net.to(memory_format=layout)
        for kind, job in (("forward", predictor), ("training step", trainer)):
            seconds, rounds = fastest(job(module, batch, half), device)
            result[f"ms a sample, {kind}{name}"] = round(seconds / count * 1000, 1)
            result[f"rounds, {kind}{name}"] = rounds
    return result


def resident(what: str) -> float:
    """VmRSS or VmHWM, the memory that is resident and its highest value, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def settle(device: str) -> float:
    """Give back what is free, begin a new peak; the MB in use."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MB
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak_of(build: Callable[[], T], use: Callable[[T, Batch], object], count: int, device: str) -> float:
    """MB at the peak of `use` with a batch, and of what `build` has made, beyond what was in use before."""
    use(build(), samples(2, device))  # code and caches of libraries, which stay
    batch = samples(count, device)
    before = settle(device)
    built = build()
    settle(device)
    use(built, batch)
    return (torch.cuda.max_memory_allocated() / MB if device == "cuda" else resident("VmHWM")) - before


def measure_memory(row: str, device: str) -> dict[str, float]:
    """MB of a prediction and of the second of two training steps, when the optimiser's averages are there."""

    def forward(module: InversionModule, batch: Batch) -> None:
        predictor(module, batch)()

    def train(module: InversionModule, batch: Batch) -> None:
        step = trainer(module, batch)
        step()
        step()

    jobs = {"forward": forward, "training step": train}
    return {f"MB, {name}": round(peak_of(lambda: make(row, device), job, BATCH, device)) for name, job in jobs.items()}


def measure_precision(row: str, device: str, precision: str, count: int) -> dict[str, float]:
    """MB and milliseconds a sample of `predict` with the network in a precision."""

    def build() -> VelocityModel:
        return make(row, device).model.lower(PRECISIONS[precision])

    def use(model: VelocityModel, batch: Batch) -> None:
        model.predict(batch["gathers"], count)

    mb = peak_of(build, use, count, device)
    model, batch = build(), samples(count, device)
    return {"MB": round(mb, 1), "ms a sample": round(fastest(lambda: use(model, batch), device)[0] / count * 1000, 1)}


def apart(*words: str, frees_at_once: bool = False) -> dict[str, Any]:
    """The result of a measurement in a process of its own."""
    # Threads that wait without sleeping would take the processor from other work, and from each other.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"} | (FREES_AT_ONCE if frees_at_once else {})
    command = [sys.executable, __file__, "--measure", *words]
    done = subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(what: str, row: str, device: str, *more: str) -> dict[str, Any]:
    """One measurement, in this process."""
    torch.set_num_threads(THREADS)
    if what == "time":
        return measure_time(row, device)
    if what == "memory":
        return measure_memory(row, device)
    return measure_precision(row, device, more[0], int(more[1]))


def compare_precisions(device: str, row: str = "unet") -> dict[str, dict[str, Any]]:
    """Memory and time of `predict` in each precision; times and ratios beside float32."""
    table: dict[str, dict[str, Any]] = {}
    for count in (BATCH, 4 * BATCH):
        for precision in PRECISIONS:
            words = ("precision", row, device, precision, str(count))
            line = {"MB": apart(*words, frees_at_once=True)["MB"]}
            kept = apart(*words)
            line["ms a sample"] = kept["ms a sample"]
            if device == "cpu":
                line["MB with glibc's defaults"] = kept["MB"]
            whole = table.get(f"32, batch {count}", line)
            line |= {f"{name}, float32 = 1": round(line[name] / whole[name], 2) for name in line}
            table[f"{precision}, batch {count}"] = line
            print(f"{row}, {precision}, batch {count}: {line}", flush=True)
    return table


def as_table(rows: dict[str, dict[str, Any]]) -> str:
    """The rows in Markdown."""
    columns = [key for key in next(iter(rows.values())) if not key.startswith("rounds")]
    lines = [["model", *columns], ["---", *["---:"] * len(columns)]]
    lines += [[name, *(str(row.get(key, "-")) for key in columns)] for name, row in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default=",".join([*ROWS, "precision"]), help="rows, and `precision`, to measure")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(*given.measure)))
        return
    device, only = given.device, given.only.split(",")
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda needs a CUDA device and none is found: leave it out to measure the CPU.")
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    table: Any = known.get(device)
    models, precision = (dict(table[part]) if isinstance(table, dict) else {} for part in ("models", "precision"))
    for row in ROWS:
        if row in only:
            models[row] = apart("time", row, device) | apart("memory", row, device, frees_at_once=True)
            print(f"{row}: {models[row]}", flush=True)
    if "precision" in only:
        precision = compare_precisions(device)
    result = {
        "command": "uv run python benchmarks/models.py [--device cuda]",
        "cpu": known.get("cpu", "not measured"),
        "cuda": known.get("cuda", "not measured"),
        device: {
            "machine": torch.cuda.get_device_name() if device == "cuda" else f"{processor()}, {os.cpu_count()} cores",
            "setting": f"batch {BATCH} (times of costly models: {FEW}), {THREADS} threads, float32, gathers of "
            f"{OPENFWI.gathers_shape}; a multiply-add is two FLOP, convolutions and matrix products count; best of the "
            f"rounds, {'seconds' if device == 'cuda' else 'processor seconds, summed over the threads'}",
            "load average": round(os.getloadavg()[0], 1),
            "models": {row: models[row] for row in ROWS if row in models},
            "precision": precision,
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(as_table(result[device]["models"]))
    print(as_table(precision) if precision else "")


if __name__ == "__main__":
    main()
