"""How fast samples are read in random order, and whether memory grows with the data.

    uv run python benchmarks/reading.py

Two files of 500 samples of 1.4 MB (made under cache/reading on first use) are read in random order in one process,
once to warm the page cache and twice more. Prints and writes benchmarks/reading.json.
"""

from __future__ import annotations

import json
import os
import platform
import re
import time
from pathlib import Path

import numpy as np

from fwi_lightning.data import GathersDataset, find_parts

ROOT = Path("cache/reading/FlatVel_A")
SAMPLES = 500


def make_files() -> None:
    """Write the two pairs of files that are not there yet."""
    for folder in ("data", "model"):
        (ROOT / folder).mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        generator = np.random.default_rng(number)
        for name, shape in (("data", (SAMPLES, 5, 1000, 70)), ("model", (SAMPLES, 1, 70, 70))):
            path = ROOT / name / f"{name}{number}.npy"
            if path.exists():
                continue
            values = generator.random(shape, dtype=np.float32)
            temporary = path.with_suffix(".part")
            with temporary.open("wb") as file:
                np.save(file, values if name == "data" else 1500 + 3000 * values)
            temporary.replace(path)


def anonymous_memory() -> float:
    """Memory of this process that is not a file's, MB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    if found is None:
        raise SystemExit("this system does not report anonymous memory (RssAnon): run on Linux.")
    return int(found.group(1)) / 1024


def epoch(dataset: GathersDataset, seed: int) -> float:
    """Read every sample once in random order; returns samples per second."""
    begun = time.perf_counter()
    for index in np.random.default_rng(seed).permutation(len(dataset)).tolist():
        dataset[index]
    return len(dataset) / (time.perf_counter() - begun)


def main() -> None:
    make_files()
    dataset = GathersDataset(find_parts(ROOT))
    memory, rates = [anonymous_memory()], []
    for number in range(3):
        rates.append(epoch(dataset, number))
        memory.append(anonymous_memory())
    result = {
        "samples": len(dataset),
        "samples_per_second_first_warm_warm": [round(rate) for rate in rates],
        "anonymous_memory_mb": {
            "start": round(memory[0], 1),
            "after_one_epoch": round(memory[1], 1),
            "after_two_epochs": round(memory[2], 1),
            "after_three_epochs": round(memory[3], 1),
        },
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}",
    }
    text = json.dumps(result, indent=2)
    print(text)
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
