"""What each loss costs and what it buys: L1, + PDE residual, + waveform misfit, on the synthetic families.

    uv run python benchmarks/losses.py                  # 2 seeds x 3 losses, about 25 minutes on two cores
    uv run python benchmarks/losses.py only=cost        # the cost of a step alone, a minute

trains with train.py into runs/losses/ (what is there already is not trained again), reads the validation MAE from each
run's metrics.csv, at equal steps and at equal wall time, and writes benchmarks/losses.json and docs/losses.png. Wall
time is steps times the cost of a step, which is measured apart, all losses in turn in one process: other work on the
machine during a training would otherwise count.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from hydra import compose, initialize_config_dir

from fwi_lightning.config import plain
from fwi_lightning.geology import FAMILIES, draw
from fwi_lightning.physics import illuminate
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.module import InversionModule

ROOT = Path(__file__).parents[1]
LOSSES = ("l1", "l1_pde", "l1_waveform")
SEEDS = (0, 1)
RUNS = ROOT / "runs" / "losses"
EPOCHS = 24
BATCH = 16
"""Samples of a step, as in conf/data/synthetic.yaml."""


def measure_cost(steps: int = 4, rounds: int = 40) -> dict[str, float]:
    """Seconds of a training step with each loss, all in turn; the best round of each counts.

    `steps` is a multiple of the waveform's `every`.
    """
    velocity = torch.from_numpy(np.concatenate([draw(FAMILIES[k % 10], 1, seed=k) for k in range(BATCH)]))
    gathers, illumination = illuminate(velocity[:, 0])
    batch = {"gathers": gathers, "velocity": velocity, "illumination": illumination[:, None]}
    modules = {}
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for loss in LOSSES:
            config = compose("train", [f"loss={loss}"])
            module = InversionModule(
                plain(config.model), OPENFWI.to_dict(), plain(config.loss), plain(config.optimizer), None, FAMILIES
            )
            transform = module.model.transform
            transform.fit(transform.mean_squares(gathers).mean(dim=0))
            modules[loss] = (module, module.configure_optimizers())
    seconds: dict[str, list[float]] = {loss: [] for loss in LOSSES}
    for number in range(rounds + 1):
        for loss, (module, optimizer) in modules.items():
            start = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                module.loss(module(batch["gathers"]), batch, OPENFWI).backward()
                optimizer.step()
            if number:  # the first round compiles
                seconds[loss].append((time.perf_counter() - start) / steps)
    return {loss: min(times) for loss, times in seconds.items()}


def train(loss: str, seed: int) -> Path:
    """One training with the default settings but for its length; its folder."""
    folder = RUNS / f"{loss}_seed{seed}"
    if not (folder / "report.html").is_file():
        words = [f"loss={loss}", f"seed={seed}", f"trainer.max_epochs={EPOCHS}", f"hydra.run.dir={folder}"]
        subprocess.run([sys.executable, "train.py", *words], cwd=ROOT, check=True)
    return folder


def read_curve(folder: Path) -> tuple[list[int], list[float]]:
    """Steps and validation MAE of a run."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/mae"]]
    return [int(row["step"]) + 1 for row in rows], [float(row["val/mae"]) for row in rows]


def read_scores(folder: Path) -> dict[str, float]:
    """Test scores of a run's best checkpoint over all families."""
    with (folder / "per_family.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["family"] == "all")
    return {name: float(row[name]) for name in ("mae", "rmse", "ssim", "boundary_iou")}


def summarise(cost: dict[str, float]) -> dict[str, dict[str, object]]:
    """The table: of each loss, the mean over seeds."""
    end = min(read_curve(RUNS / f"l1_seed{seed}")[0][-1] for seed in SEEDS) * cost["l1"]
    table: dict[str, dict[str, object]] = {}
    for loss in LOSSES:
        folders = [RUNS / f"{loss}_seed{seed}" for seed in SEEDS]
        curves = [read_curve(folder) for folder in folders]
        scores = [read_scores(folder) for folder in folders]
        table[loss] = {
            "seconds a step": round(cost[loss], 4),
            "cost of a step, l1 = 1": round(cost[loss] / cost["l1"], 3),
            "val/mae at equal steps": [round(mae[-1], 1) for _, mae in curves],
            "val/mae at equal wall time": [
                round(float(np.interp(end / cost[loss], steps, mae)), 1) for steps, mae in curves
            ],
        } | {f"best checkpoint, {name}": [round(s[name], 4) for s in scores] for name in scores[0]}
    return table


def draw_curves(cost: dict[str, float], path: Path) -> None:
    """Validation MAE against steps and against wall time."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for number, loss in enumerate(LOSSES):
        for seed in SEEDS:
            steps, mae = read_curve(RUNS / f"{loss}_seed{seed}")
            style = {"color": f"C{number}", "linestyle": "-" if seed == 0 else "--"}
            left.plot(steps, mae, label=f"{loss}, seed {seed}", **style)
            right.plot(np.array(steps) * cost[loss], mae, **style)
    left.set(xlabel="training steps", ylabel="validation MAE (m/s)", yscale="log")
    right.set(xlabel="steps x seconds a step (s)")
    left.legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Train what is missing, measure, print, write."""
    if "only=cost" in sys.argv[1:]:
        print(json.dumps({loss: round(value, 4) for loss, value in measure_cost().items()}, indent=2))
        return
    for seed in SEEDS:
        for loss in LOSSES:
            train(loss, seed)
    cost = measure_cost()
    result = {
        "command": "uv run python benchmarks/losses.py",
        "cores": os.cpu_count(),
        "setting": f"train.py, {EPOCHS} epochs of 75 steps, else its defaults: 1200 simulated samples of ten families",
        "losses": summarise(cost),
    }
    text = json.dumps(result, indent=2)
    print(text)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    draw_curves(cost, ROOT / "docs" / "losses.png")


if __name__ == "__main__":
    main()
