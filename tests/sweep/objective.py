"""A sweep of a cheap function, with the sweeper of train.py and without torch: `SWEEP_DIR=... python objective.py`."""

import os
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fwi_lightning.errors import UserError


def objective(config: DictConfig) -> float | None:
    """A bowl in x with its floor at 0.3, higher for a greater width; leaves its process number in its folder."""
    found = HydraConfig.get()
    (Path(found.runtime.output_dir) / "process").write_text(str(os.getpid()))
    time.sleep(config.seconds)
    if config.fail == "always" or (config.fail == "sometimes" and config.width > 1):
        raise UserError("this point cannot be tried.")
    if config.fail == "none":
        return None
    score = (config.x - 0.3) ** 2 + 0.01 * config.width + config.kind.penalty
    if config.validations:
        report(score, config.validations, found)
    return score


def report(score: float, validations: int, found: DictConfig) -> None:
    """What training does with `callbacks.pruning`."""
    import optuna

    from fwi_lightning.sweep.study import running_trial

    pruner = optuna.pruners.MedianPruner(n_startup_trials=3)
    trial = running_trial(found.sweeper.storage, found.sweeper.study_name, found.job.num, pruner)
    for step in range(validations):
        trial.report(score + 1 / (step + 1), step)
        if trial.should_prune():
            raise optuna.TrialPruned


main = hydra.main(version_base="1.3", config_path=str(Path(__file__).parent / "conf"), config_name="objective")(
    objective
)

if __name__ == "__main__":
    main()
