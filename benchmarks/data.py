"""How fast samples are read, from files and from shards, and whether memory grows with the data.

    uv run python benchmarks/data.py

Three thousand samples of OpenFWI's size in six files, 4.3 GB, and the same as shards of float32 and float16 (made under
cache/data_benchmark on first use, 11 GB in all). Each is read in random order in one process, once to warm the page
cache and twice to measure; then through the training loader, in its order, for two epochs. Anonymous memory (RssAnon)
is what a process has to itself; the page cache, which the system takes back when it needs it, is not in it. Prints a
table and writes benchmarks/data.json.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from fwi_lightning.data import GathersDataModule, ShardsDataModule, find_parts
from fwi_lightning.data.shards.writing import shard_settings, write_shards
from fwi_lightning.survey import OPENFWI

ROOT = Path("cache/data_benchmark")
FILES = 6
SAMPLES = 500
"""In each file."""
BATCH = 16
SHUFFLE_MB = 512
"""What the loader shuffles together."""


def make_files() -> None:
    """Write what is not there yet: pairs of files, and the shards."""
    for number in range(1, FILES + 1):
        generator = np.random.default_rng(number)
        for name, shape in (("data", (SAMPLES, 5, 1000, 70)), ("model", (SAMPLES, 1, 70, 70))):
            path = ROOT / "files" / "FlatVel_A" / name / f"{name}{number}.npy"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            values = generator.random(shape, dtype=np.float32)
            temporary = path.with_suffix(".part")
            with temporary.open("wb") as file:
                np.save(file, values if name == "data" else 1500 + 3000 * values)
            temporary.replace(path)
    parts = find_parts(ROOT / "files")
    for dtype in ("float32", "float16"):
        settings = shard_settings(parts, OPENFWI, shard_mb=64, dtype=dtype, illumination=False)
        write_shards(parts, ROOT / dtype, settings)


def anonymous_memory() -> float:
    """Memory of this process that is not a file's, MB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    if found is None:
        raise SystemExit("this system does not report anonymous memory (RssAnon): run on Linux.")
    return int(found.group(1)) / 1024


def random_reads(data: GathersDataModule) -> tuple[int, int]:
    """Read every training sample in random order; samples a second, and a second of the processor's time."""
    dataset = data.train_dataset
    begun, used = time.perf_counter(), time.process_time()
    for index in np.random.default_rng().permutation(len(dataset)).tolist():
        dataset[index]
    return round(len(dataset) / (time.perf_counter() - begun)), round(len(dataset) / (time.process_time() - used))


def epoch(data: GathersDataModule, number: int, step: Callable[[], None]) -> int:
    """Read every training sample through the loader, in batches; samples a second."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)  # type: ignore[attr-defined]
    begun, samples = time.perf_counter(), 0
    for batch in loader:
        samples += len(batch["gathers"])
        step()
    return round(samples / (time.perf_counter() - begun))


def measure(data: GathersDataModule) -> dict[str, Any]:
    """Rates and memory of one way of reading."""
    data.setup()
    random_reads(data)
    before = anonymous_memory()
    reads = [random_reads(data) for _ in range(2)]
    peaks: list[float] = []
    loaded, after = [], []
    for number in range(2):
        loaded.append(epoch(data, number, lambda: peaks.append(anonymous_memory())))
        after.append(round(anonymous_memory()))
    return {
        "random_samples_per_second": [read for read, _ in reads],
        "random_samples_per_cpu_second": [read for _, read in reads],
        "loader_samples_per_second": loaded,
        "anonymous_mb": {"before": round(before), "after_each_epoch": after, "peak": round(max(peaks))},
    }


def main() -> None:
    torch.set_num_threads(1)
    make_files()
    ways = {
        "files": GathersDataModule(str(ROOT / "files"), batch_size=BATCH),
        "shards, float32": ShardsDataModule(str(ROOT / "float32"), batch_size=BATCH, shuffle_mb=SHUFFLE_MB),
        "shards, float16": ShardsDataModule(str(ROOT / "float16"), batch_size=BATCH, shuffle_mb=SHUFFLE_MB),
    }
    table = Table(
        "read from",
        "random, samples/s",
        "random, samples/CPU s",
        "loader, samples/s",
        "anonymous memory, MB: before, after, peak",
    )
    kinds = ("random_samples_per", "random_samples_per_cpu", "loader_samples_per")
    results = {}
    for name, data in ways.items():
        results[name] = found = measure(data)
        memory = found["anonymous_mb"]
        rates = (", ".join(map(str, found[f"{kind}_second"])) for kind in kinds)
        figures = [memory["before"], *memory["after_each_epoch"], memory["peak"]]
        table.add_row(name, *rates, ", ".join(map(str, figures)))
    Console().print(table)
    result = {
        "training_samples": len(data.train_dataset),
        "batch_size": BATCH,
        "processes": 1,
        "load_average": round(os.getloadavg()[0], 1),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
        "results": results,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
