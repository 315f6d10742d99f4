"""What the training system costs beside a bare torch loop over the same net, samples, loss and optimiser.

    uv run python benchmarks/overhead.py        # a few minutes on two cores

Both train `shallow_unet` from memory-mapped files with the default settings. The system has everything on that
train.py has by default: averaged weights, clipping, one-cycle, metrics.csv, gradient norms, throughput, steps that
survive a lack of memory. Rounds of both alternate in one process, and each is judged by its fastest round in processor
time, so that other work on the machine disturbs least. Prints the table and writes benchmarks/overhead.json.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fwi_lightning.commands import _register_resolvers
from fwi_lightning.config import build, plain
from fwi_lightning.data import GathersDataModule
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.memory import SplitStep
from fwi_lightning.training.module import InversionModule

ROOT = Path(__file__).parents[1]
ROUNDS = 5
STEPS = 60
"""Steps of a round."""


def settings(folder: str) -> Any:
    """The default configuration, with the run folder that Hydra would give it, and no validation."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("train", ["loss=l1", "scheduler=one_cycle"], return_hydra_config=True)
    config.hydra.runtime.output_dir = folder
    OmegaConf.register_new_resolver("hydra", lambda key: OmegaConf.select(config.hydra, key), replace=True)
    return config


def make(config: Any, data: GathersDataModule) -> InversionModule:
    """The module with the same weights each time."""
    lightning.seed_everything(0, verbose=False)
    return InversionModule(
        plain(config.model),
        OPENFWI.to_dict(),
        plain(config.loss),
        plain(config.optimizer),
        plain(config.scheduler),
        data.families,
    )


def endless(loader: Any) -> Iterator[Any]:
    """Batches without end."""
    while True:
        yield from loader


def bare(config: Any, data: GathersDataModule) -> tuple[float, float]:
    """A loop as anyone would write it: processor and wall seconds of `STEPS` steps."""
    torch.use_deterministic_algorithms(False)  # which a trainer of an earlier round has turned on
    module = make(config, data).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    batches = endless(data.train_dataloader())
    for step in range(STEPS + 2):
        if step == 2:  # the first two warm up
            begun, wall = time.process_time(), time.perf_counter()
        batch = next(batches)
        optimizer.zero_grad()
        loss = module.loss(module(batch["gathers"]), batch, OPENFWI)
        loss.backward()
        optimizer.step()
    return time.process_time() - begun, time.perf_counter() - wall


class Clock(lightning.Callback):
    """Processor and wall time from the end of the second step to the end of the last."""

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Note the time."""
        if trainer.global_step == 2:
            self.begun = time.process_time(), time.perf_counter()
        self.seconds = (
            (time.process_time() - self.begun[0], time.perf_counter() - self.begun[1])
            if trainer.global_step > 2
            else (0.0, 0.0)
        )


def system(config: Any, data: GathersDataModule, folder: str) -> tuple[float, float, float]:
    """train.py's trainer and module: processor and wall seconds of `STEPS` steps, and the share of waiting for data."""
    module = make(config, data)
    module.memory = SplitStep(config.memory_failures)
    clock = Clock()
    entries = {name: entry for name, entry in config.callbacks.items() if name not in ("best", "early_stopping")}
    callbacks = [build(entry) for entry in entries.values()] + [clock]
    # The schedule's length is that of a whole run; the loop ends before it.
    trainer = lightning.Trainer(
        callbacks=callbacks,
        logger=[build(entry) for entry in config.logger.values()],
        default_root_dir=folder,
        **plain(config.trainer)
        | {"max_steps": STEPS + 2, "max_epochs": -1, "limit_val_batches": 0, "enable_progress_bar": False},
    )
    trainer.fit(module, datamodule=data)
    return *clock.seconds, float(trainer.callback_metrics["train/data_wait"])


def main() -> None:
    """Measure in turn, print, write."""
    _register_resolvers()
    torch.set_num_threads(os.cpu_count() or 1)
    rounds: dict[str, list[tuple[float, ...]]] = {"bare loop": [], "train.py": []}
    with tempfile.TemporaryDirectory() as folder:
        config = settings(folder)
        data: GathersDataModule = build(config.data, survey=OPENFWI.to_dict())
        data.prepare_data()
        data.setup()
        for number in range(ROUNDS):
            # Which one comes first changes from round to round.
            for name in sorted(rounds, reverse=bool(number % 2)):
                run = Path(folder) / f"{name.replace(' ', '_')}_{number}"
                seconds = bare(config, data) if name == "bare loop" else system(settings(str(run)), data, str(run))
                rounds[name].append(seconds)
                print(f"{name}: {1e3 * seconds[0] / STEPS:.1f} ms of processor a step", flush=True)
    best = {name: min(seconds[0] for seconds in found) / STEPS for name, found in rounds.items()}
    wall = {name: min(seconds[1] for seconds in found) / STEPS for name, found in rounds.items()}
    result = {
        "command": "uv run python benchmarks/overhead.py",
        "setting": f"shallow_unet, batch {data.batch_size}, {STEPS} steps, fastest of {ROUNDS} rounds in turn",
        "processor ms a step": {name: round(1e3 * seconds, 2) for name, seconds in best.items()},
        "wall ms a step": {name: round(1e3 * seconds, 2) for name, seconds in wall.items()},
        "overhead": round(best["train.py"] / best["bare loop"] - 1, 4),
        "overhead in wall time": round(wall["train.py"] / wall["bare loop"] - 1, 4),
        "share of waiting for data": round(min(seconds[2] for seconds in rounds["train.py"]), 4),
    }
    text = json.dumps(result, indent=2)
    print(text)
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
