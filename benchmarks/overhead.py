"""What the training system costs beside a bare torch loop over the same net, samples, loss and optimiser.

    uv run python benchmarks/overhead.py        # two minutes on two cores

Both train `shallow_unet` from memory-mapped files with the default settings. The system has everything on that
train.py has by default: averaged weights, clipping, one-cycle, metrics.csv, gradient norms, throughput, steps that
survive a lack of memory. After each of its steps the bare loop does one, in the same process, so that both meet the
same machine, whatever else that does: what counts is the median over the pairs. Prints the table and writes
benchmarks/overhead.json.
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
import numpy as np
import torch
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fwi_lightning.commands import _register_resolvers
from fwi_lightning.config import build, plain
from fwi_lightning.data import GathersDataModule
from fwi_lightning.survey import OPENFWI
from fwi_lightning.training.memory import SplitStep
from fwi_lightning.training.module import InversionModule

ROOT = Path(__file__).parents[1]
STEPS = 200
WARM_UP = 10
"""Steps that are not counted."""


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


def bare(config: Any, data: GathersDataModule) -> Iterator[None]:
    """A loop as anyone would write it, a step at a time."""
    module = make(config, data).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    for batch in endless(data.train_dataloader()):
        optimizer.zero_grad()
        loss = module.loss(module(batch["gathers"]), batch, OPENFWI)
        loss.backward()
        optimizer.step()
        yield


class Pairs(lightning.Callback):
    """Between two steps of the trainer a step of the bare loop; both are timed.

    Attributes:
        seconds: Processor and wall seconds of the steps, (steps, 2), of each.
        waited: Wall seconds from the end of each of the trainer's steps to the next batch.
    """

    def __init__(self, other: Iterator[None]) -> None:
        self._other = other
        self._resumed: NDArray[np.float64] | None = None
        self.seconds: dict[str, list[NDArray[np.float64]]] = {"bare loop": [], "train.py": []}
        self.waited: list[float] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """The trainer has its batch: a pair is complete."""
        begun = now()
        if self._resumed is not None:
            self.seconds["train.py"].append(begun - self._resumed)
            self.waited.append(begun[1] - self._ended)
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(False)
        begun = now()
        next(self._other)
        self.seconds["bare loop"].append(now() - begun)
        torch.use_deterministic_algorithms(deterministic)
        self._resumed = now()

    def on_train_batch_end(self, *_: Any) -> None:
        """From here on the trainer waits."""
        self._ended = now()[1]


def now() -> NDArray[np.float64]:
    """Processor and wall time, seconds."""
    return np.array([time.process_time(), time.perf_counter()])


def fit(config: Any, data: GathersDataModule, folder: str, pairs: Pairs) -> None:
    """train.py's trainer and module, for some steps."""
    module = make(config, data)
    module.memory = SplitStep(config.memory_failures)
    entries = {name: entry for name, entry in config.callbacks.items() if name not in ("best", "early_stopping")}
    # The schedule's length is that of a whole run; the loop ends before it.
    trainer = lightning.Trainer(
        callbacks=[*(build(entry) for entry in entries.values()), pairs],
        logger=[build(entry) for entry in config.logger.values()],
        default_root_dir=folder,
        **plain(config.trainer)
        | {"max_steps": STEPS, "max_epochs": -1, "limit_val_batches": 0, "enable_progress_bar": False},
    )
    trainer.fit(module, datamodule=data)


def main() -> None:
    """Measure in turn, print, write."""
    _register_resolvers()
    torch.set_num_threads(os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as folder:
        config = settings(folder)
        data: GathersDataModule = build(config.data, survey=OPENFWI.to_dict())
        data.prepare_data()
        data.setup()
        pairs = Pairs(bare(config, data))
        fit(config, data, folder, pairs)
    steps = {name: np.array(found[WARM_UP : STEPS - 1]) for name, found in pairs.seconds.items()}
    ratio = np.median(steps["train.py"] / steps["bare loop"], axis=0) - 1
    share = sum(pairs.waited[WARM_UP:]) / steps["train.py"][:, 1].sum()
    medians = {name: np.round(1e3 * np.median(found, axis=0), 2) for name, found in steps.items()}
    result = {
        "command": "uv run python benchmarks/overhead.py",
        "setting": f"shallow_unet, batch {data.batch_size}, median of {STEPS - WARM_UP - 1} pairs of steps",
        "processor ms a step": {name: float(found[0]) for name, found in medians.items()},
        "wall ms a step": {name: float(found[1]) for name, found in medians.items()},
        "overhead": round(float(ratio[0]), 4),
        "overhead in wall time": round(float(ratio[1]), 4),
        "share of waiting for data": round(share, 4),
    }
    text = json.dumps(result, indent=2)
    print(text)
    Path(__file__).with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    main()
