"""The small models at equal cost: how good each is after ten minutes of one core.

    uv run python benchmarks/accuracy.py                  # 3 to 4 hours on two cores: two trainings at a time
    uv run python benchmarks/accuracy.py only=cost        # the cost of a step alone, a minute
    uv run python benchmarks/accuracy.py only=table       # from the runs that there are

trains with train.py into runs/accuracy/ (what is there already is not trained again) and writes
benchmarks/accuracy.json, of the runs that there are. The budget is steps times the cost of a step, measured once and
apart, on one thread: other work on the machine during a training does not count. Validation and the reading of samples,
the same for all, are not in it.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from fwi_lightning.config import build, plain
from fwi_lightning.geology import FAMILIES
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.module import InversionModule

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "accuracy"
COSTS = RUNS / "cost.json"
BUDGET = 600.0
"""Seconds of one core that a model trains for."""
BATCH = 16
"""Samples of a step, as in conf/data/synthetic.yaml."""
DATA = ["data.samples_per_family=500", "data.samples_per_file=50", "loss=l1"]
PLAIN = ["~callbacks.ema", "trainer.gradient_clip_val=null"]
"""The models as they are: averaged weights and clipped gradients help some more than others."""
PEER = "inversionnet"
MODELS: dict[str, list[str]] = {
    "inversionnet": [],
    "shallow_unet_small": [],
    "shallow_unet": [],
    "shallow_unet_large": [],
    "specproj_unet": [],
    "unet": [],
    "resunet5": [],
    "invertible_unet": [],
}
VARIANTS: dict[str, list[str]] = {
    "inversionnet, every 4 ms": ["model.time_step=0.004"],
    "inversionnet, lr 0.0005": ["optimizer.lr=0.0005"],
    "shallow_unet, every 1 ms": ["model.time_step=0.001"],
}
"""Other settings of the same models, trained from the first seed alone."""
SAME_COST = {"inversionnet, lr 0.0005": "inversionnet"}
RUN_SEEDS = dict.fromkeys(MODELS, (0, 1)) | dict.fromkeys(VARIANTS, (0,))


def words_of(name: str) -> list[str]:
    """What is written after `train.py` for a row of the table."""
    return [f"model={name.split(',')[0]}", *(MODELS | VARIANTS)[name]]


def settings(*words: str) -> Any:
    """The configuration of a training."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", [*DATA, *words])


def measure_cost(names: Iterable[str], steps: int = 8) -> dict[str, float]:
    """Seconds of one core for a training step of each model: the fastest of some steps on end."""
    torch.set_num_threads(1)
    batch = {"gathers": torch.randn(BATCH, *OPENFWI.gathers_shape), "velocity": torch.full((BATCH, 1, 70, 70), 3e3)}
    costs = {}
    for name in names:
        config = settings(*words_of(name))
        module = InversionModule(
            plain(config.model), OPENFWI.to_dict(), plain(config.loss), plain(config.optimizer), None, FAMILIES
        )
        optimizer = module.configure_optimizers()
        seconds = []
        for _ in range(steps):
            start = time.process_time()
            optimizer.zero_grad()
            module.loss(module(batch["gathers"]), batch, OPENFWI).backward()
            optimizer.step()
            seconds.append(time.process_time() - start)
        costs[name] = round(min(seconds), 4)
    return costs


def folder_of(name: str, seed: int) -> Path:
    """The run folder of a training."""
    return RUNS / f"{name.replace(', ', '_').replace(' ', '_')}_seed{seed}"


def train(name: str, seed: int, cost: float) -> None:
    """One training of `BUDGET` seconds of one core, unless it is there already."""
    folder = folder_of(name, seed)
    if (folder / "report.html").is_file():
        return
    # Scores at the end of the schedule: nothing is chosen by the samples that it is scored on.
    words = [
        *DATA,
        *PLAIN,
        *words_of(name),
        f"seed={seed}",
        f"trainer.max_steps={int(BUDGET / cost)}",
        "trainer.max_epochs=-1",
    ]
    words += ["trainer.limit_val_batches=0", "~callbacks.best", "~callbacks.early_stopping", f"hydra.run.dir={folder}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    log = RUNS / f"{folder.name}.log"
    with log.open("w") as file:
        command = [sys.executable, "train.py", *words]
        subprocess.run(command, cwd=ROOT, check=True, env=environment, stdout=file, stderr=subprocess.STDOUT)
    print(f"{name}, seed {seed}: MAE {read_families(name, seed)['all']['mae']:.1f} m/s", flush=True)


def read_families(name: str, seed: int) -> dict[str, dict[str, float]]:
    """Test scores of a run by family, "all" for the whole."""
    with (folder_of(name, seed) / "per_family.csv").open(newline="") as file:
        return {row.pop("family"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def summarise(costs: dict[str, float]) -> dict[str, dict[str, Any]]:
    """The table: of each model its cost, and its scores for each seed."""
    table: dict[str, dict[str, Any]] = {}
    for name, seeds in RUN_SEEDS.items():
        runs = [read_families(name, seed) for seed in seeds if (folder_of(name, seed) / "per_family.csv").is_file()]
        if not runs:
            continue
        table[name] = {"seconds a step": costs[name], "steps": int(BUDGET / costs[name])}
        table[name] |= {
            score: [round(run["all"][score], 4) for run in runs] for score in ("mae", "ssim", "boundary_iou")
        }
        table[name]["mean map's mae"] = round(runs[0]["all"]["mean_map_mae"], 1)
        table[name]["mae per family"] = {
            family: round(float(np.mean([run[family]["mae"] for run in runs])), 1) for family in FAMILIES
        }
    return table


def main() -> None:
    """Measure, train what is missing, print, write."""
    RUNS.mkdir(parents=True, exist_ok=True)
    only = next((word.removeprefix("only=") for word in sys.argv[1:] if word.startswith("only=")), None)
    costs = json.loads(COSTS.read_text()) if COSTS.is_file() else {}
    missing = [name for name in RUN_SEEDS if name not in costs and name not in SAME_COST]
    if missing:
        costs |= measure_cost(missing)
        costs |= {name: costs[other] for name, other in SAME_COST.items()}
        COSTS.write_text(json.dumps(costs, indent=2) + "\n")
        print(COSTS.read_text())
    if only == "cost":
        return
    if only != "table":
        config = settings()
        build(config.data, survey=OPENFWI.to_dict()).prepare_data()
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1))) as pool:
            runs = [(name, seed) for name, seeds in RUN_SEEDS.items() for seed in seeds]
            list(pool.map(lambda run: train(*run, costs[run[0]]), runs))
    result = {
        "command": "uv run python benchmarks/accuracy.py",
        "setting": f"{BUDGET:.0f} s of one core, batch {BATCH}, L1 loss, 4000 simulated samples of ten families train, "
        "1000 test",
        "models": summarise(costs),
    }
    text = json.dumps(result, indent=2)
    print(text)
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
