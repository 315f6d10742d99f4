"""What the precision of a training costs and what it buys: time of a step, memory, and accuracy after equal steps.

    uv run python benchmarks/precision.py                  # CPU, Linux: 32-true, bf16-mixed; half an hour on two cores
    uv run python benchmarks/precision.py --device cuda    # GPU: 16-mixed too

trains `unet` with train.py into runs/precision/ (what is there already is not trained again) and writes
benchmarks/precision.json. Times and memory are measured apart, in processes of their own, as benchmarks/models.py does.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import BATCH, FREES_AT_ONCE, THREADS, Batch, fastest, make, peak_of, samples

from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.module import InversionModule

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "precision"
RESULT = Path(__file__).with_suffix(".json")
ROW = "unet"
STEPS = 300
SEEDS = (0, 1)
TYPES = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
ON = {"cpu": ("32-true", "bf16-mixed"), "cuda": ("32-true", "bf16-mixed", "16-mixed")}
"""Precisions that a kind of device trains in."""


def training_step(module: InversionModule, batch: Batch, precision: str) -> Callable[[], None]:
    """Forward, L1, backward, AdamW, as Lightning does them in a precision; done twice already."""
    optimizer = module.train().configure_optimizers()
    dtype, device = TYPES[precision], batch["gathers"].device.type
    scaler = torch.amp.GradScaler(device, enabled=precision == "16-mixed")

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype, enabled=dtype is not None):
            loss = module.loss(module(batch["gathers"]), batch, OPENFWI)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    step()  # the optimiser's averages
    step()
    return step


def measure(what: str, precision: str, device: str) -> float:
    """Milliseconds of a step, or MB at its peak, in this process."""
    torch.set_num_threads(THREADS)
    if what == "ms":
        step = training_step(make(ROW, device), samples(BATCH, device), precision)
        return round(1000 * fastest(step, device)[0], 1)
    return round(peak_of(lambda: make(ROW, device), lambda m, b: training_step(m, b, precision), BATCH, device), 1)


def apart(what: str, precision: str, device: str) -> float:
    """The same in a process of its own."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"} | (FREES_AT_ONCE if what == "MB" else {})
    command = [sys.executable, __file__, "--device", device, "--measure", what, precision]
    done = subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def train(precision: str, seed: int, device: str) -> dict[str, float]:
    """Scores of a training of `STEPS` steps, unless it is there already."""
    folder = RUNS / f"{device}_{precision}_seed{seed}"
    if not (folder / "report.html").is_file():
        words = [f"model={ROW}", "loss=l1", f"seed={seed}", f"trainer.precision={precision}"]
        words += [f"trainer.max_steps={STEPS}", "trainer.max_epochs=-1", "trainer.limit_val_batches=0"]
        words += ["~callbacks.best", "~callbacks.early_stopping", f"hydra.run.dir={folder}"]
        words += [f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"]
        subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, check=True, stdout=sys.stderr)
    with (folder / "per_family.csv").open(newline="") as file:
        rows = {row["family"]: row for row in csv.DictReader(file)}
    return {name: round(float(rows["all"][name]), 4) for name in ("mae", "ssim", "boundary_iou")}


def compare(device: str) -> dict[str, dict[str, Any]]:
    """The table of a kind of device."""
    table: dict[str, dict[str, Any]] = {}
    for precision in ON[device]:
        row: dict[str, Any] = {"ms a step": apart("ms", precision, device), "MB": apart("MB", precision, device)}
        scores = [train(precision, seed, device) for seed in SEEDS]
        row |= {name: [score[name] for score in scores] for name in scores[0]}
        whole = table.get("32-true", row)
        row |= {f"{name}, 32-true = 1": round(row[name] / whole[name], 2) for name in ("ms a step", "MB")}
        table[precision] = row
        print(f"{precision}: {row}", flush=True)
    return table


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=sorted(ON), default="cpu")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "PRECISION"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(*given.measure, given.device))
        return
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    result |= {
        "command": "uv run python benchmarks/precision.py",
        "setting": f"{ROW}, batch {BATCH}, {STEPS} steps, L1, seeds {SEEDS}, 1500 simulated samples; ms of a CPU are "
        "processor time summed over two threads",
        given.device: compare(given.device),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
