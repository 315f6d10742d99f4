"""A trial of a sweep tells the study how it goes, and stops if others went better."""

from __future__ import annotations

import shutil
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from fwi_lightning.errors import UserError


class Pruning(Callback):
    """Report a score after every validation, and end a hopeless trial.

    A trial is hopeless if its best score so far is worse than a percentile of those that the others had after as many
    validations (Optuna's PercentilePruner).

    Args:
        monitor: The logged score.
        storage: URL of the study's storage, see `fwi_lightning.sweep.storage.open_storage`.
        study_name: Name of the study.
        trial: Number of the trial.
        percentile: Share of trials, in percent, that a trial must be among to go on; 50 is the median. None only
            reports. Default 50.
        startup_trials: Complete trials before any is stopped. Default 5.
        warmup: Validations of a trial before it may be stopped. Default 2.
        checkpoints: Folder that is removed when the trial is stopped; None keeps it. Default None.

    Raises:
        UserError: If the percentile is out of range.
    """

    def __init__(
        self,
        monitor: str,
        storage: str,
        study_name: str,
        trial: int,
        percentile: float | None = 50.0,
        startup_trials: int = 5,
        warmup: int = 2,
        checkpoints: str | None = None,
    ) -> None:
        if percentile is not None and not 0 < percentile <= 100:
            raise UserError(f"callbacks.pruning.percentile must be above 0 and at most 100, or null, got {percentile}.")
        self.monitor, self.storage, self.study_name, self.trial = monitor, storage, study_name, trial
        self.percentile, self.startup_trials, self.warmup = percentile, startup_trials, warmup
        self.checkpoints = checkpoints
        self._validations = 0
        self._trial: Any = None

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Report, ask, and stop.

        Raises:
            optuna.TrialPruned: If the trial is hopeless; the sweeper takes it as the trial's end.
        """
        if trainer.sanity_checking or self.monitor not in trainer.callback_metrics:
            return
        self._validations += 1
        hopeless = trainer.is_global_zero and self._report(float(trainer.callback_metrics[self.monitor]))
        if not trainer.strategy.broadcast(hopeless):
            return
        if self.checkpoints is not None and trainer.is_global_zero:
            shutil.rmtree(self.checkpoints, ignore_errors=True)
        # Not trainer.should_stop: what comes after the fit, a test and its report, is not for this trial.
        from optuna import TrialPruned

        raise TrialPruned(f"{self.monitor} was worse than that of other trials after {self._validations} validations")

    def _report(self, score: float) -> bool:
        """Tell the study a score; whether the trial is to stop."""
        if self._trial is None:
            self._trial = self._open()
        self._trial.report(score, self._validations - 1)  # Optuna's warm-up counts steps from 0
        return bool(self._trial.should_prune())

    def _open(self) -> Any:
        """The trial in the study. Optuna is imported here, since only sweeps need it."""
        from optuna.pruners import BasePruner, NopPruner, PercentilePruner

        from fwi_lightning.sweep.study import running_trial

        pruner: BasePruner = NopPruner()
        if self.percentile is not None:
            pruner = PercentilePruner(self.percentile, self.startup_trials, n_warmup_steps=self.warmup)
        return running_trial(self.storage, self.study_name, self.trial, pruner)
