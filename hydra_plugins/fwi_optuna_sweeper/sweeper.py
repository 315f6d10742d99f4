"""Bayesian search with a study that outlives the process: `hydra/sweeper=fwi_optuna`.

Hydra imports this file at the start of every command, so what is slow to import is imported where it is used.
"""

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from fwi_lightning.errors import UserError

REPORT_SHARE = 0.05
"""Largest share of the time that goes into reports between batches."""


@dataclass
class OptunaSweeperConf:
    """Settings of the sweeper, explained in conf/sweep/optuna.yaml."""

    _target_: str = "hydra_plugins.fwi_optuna_sweeper.sweeper.OptunaSweeper"
    space: dict[str, Any] = field(default_factory=dict)
    n_trials: int = 20
    n_jobs: int = 1
    metric: str = "score"
    direction: str = "minimize"
    study_name: str = "default"
    storage: str = "sqlite:///${hydra.sweep.dir}/study.db"
    seed: int = 0
    startup_trials: int = 10
    max_failures: int = 3


ConfigStore.instance().store(
    group="hydra/sweeper", name="fwi_optuna", node=OptunaSweeperConf, provider="fwi_optuna_sweeper"
)


class OptunaSweeper(Sweeper):
    """Run trials until the study has its total.

    Args:
        **settings: Those of `OptunaSweeperConf`.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = OptunaSweeperConf(**settings)
        self.space: Any = OmegaConf.to_container(settings["space"], resolve=True)
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take the configuration; Hydra calls this."""
        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials that are missing, and write the report; Hydra calls this.

        Args:
            arguments: Words of the command line.

        Raises:
            UserError: If a setting does not fit, the study was begun with another search, it is running already, or
                all of its first trials fail.
        """
        from fwi_lightning.sweep.space import join, read_space, read_words
        from fwi_lightning.sweep.storage import only_one

        assert self.config is not None
        assert self.hydra_context is not None
        for name in ("n_trials", "n_jobs", "max_failures"):
            if getattr(self.settings, name) < 1:
                raise UserError(f"hydra.sweeper.{name} must be at least 1, got {getattr(self.settings, name)}.")
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        typed, fixed = read_words(parser.parse_overrides(arguments))
        space = join(read_space(self.space), typed, fixed)
        self._check_words(space, fixed)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            self._search(space, fixed, folder)

    def _check_words(self, space: Any, fixed: list[str]) -> None:
        """Compose each choice and each end of a range once, before any trial is entered."""
        from fwi_lightning.sweep.space import words_of

        values = [getattr(found, "choices", None) or (found.low, found.high) for found in space.values()]
        points = (
            {name: choices[min(place, len(choices) - 1)] for name, choices in zip(space, values, strict=True)}
            for place in range(max(map(len, values)))
        )
        self.validate_batch_is_legal([fixed + words_of(point) for point in points])

    def _search(self, space: Any, fixed: list[str], folder: Path) -> None:
        import optuna

        from fwi_lightning.report.study import write_study_report
        from fwi_lightning.sweep import study as studies

        settings = self.settings
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = studies.open_study(settings.study_name, settings.storage, settings.direction, space)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        killed = studies.abandon_running(study)
        done = len(studies.ended(study))
        if study.trials:
            print(
                f"study {settings.study_name}: {done} trials done, {killed} cut short that are done again", flush=True
            )
        written, cost = -math.inf, 0.0
        while (missing := settings.n_trials - len(studies.ended(study))) > 0:
            wanted = min(missing, settings.n_jobs)
            points = studies.owed(study)[:wanted]
            points += studies.draw(study, space, wanted - len(points), settings.seed, settings.startup_trials)
            if not points:
                print(
                    f"the search space has {studies.size(space):.0f} points and all were tried: there is nothing left "
                    f"for n_trials={settings.n_trials}.",
                    flush=True,
                )
                break
            error = self._run(study, space, points, fixed)
            now = time.monotonic()
            if now - written > cost / REPORT_SHARE:
                write_study_report(folder, study, settings.metric)
                written, cost = time.monotonic(), time.monotonic() - now
            self._stop_if_hopeless(study, error)
        print(write_study_report(folder, study, settings.metric), flush=True)

    def _run(self, study: Any, space: Any, points: Sequence[dict[str, Any]], fixed: list[str]) -> BaseException | None:
        """Run a batch of trials; the last error, if there was one."""
        from fwi_lightning.sweep import study as studies
        from fwi_lightning.sweep.outcome import failure, outcome_of
        from fwi_lightning.sweep.space import words_of

        assert self.launcher is not None
        numbers = [studies.begin(study, space, point) for point in points]
        # The launcher counts jobs from the first one's number: ${hydra:job.num} is the number of the trial.
        if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise UserError(f"another process adds trials to the study {study.study_name!r}: let one run it.")
        errors: Sequence[BaseException | None]
        try:
            results = self.launcher.launch([fixed + words_of(point) for point in points], initial_job_idx=numbers[0])
            outcomes, errors = zip(*map(outcome_of, results), strict=True)
        # A job that was killed, or that cannot be composed or sent, is the launcher's exception.
        except Exception as error:
            outcomes, errors = (failure(error),) * len(points), (error,) * len(points)
        for number, point, outcome, raised in zip(numbers, points, outcomes, errors, strict=True):
            studies.finish(study, number, outcome)
            score = f" {self.settings.metric} {outcome.score:.6g}" if outcome.score is not None else ""
            state = outcome.state.name.lower().replace("fail", "failed: " + outcome.error)
            print(f"trial {number} {state}{score}  {' '.join(words_of(point))}", flush=True)
            if raised is not None and not isinstance(raised, UserError):
                traceback.print_exception(raised)
        return next((error for error in reversed(errors) if error is not None), None)

    def _stop_if_hopeless(self, study: Any, error: BaseException | None) -> None:
        """Raise the last error if nothing but failures has come."""
        from fwi_lightning.sweep.study import ended

        trials = ended(study)
        if len(trials) < self.settings.max_failures or any(trial.state.name != "FAIL" for trial in trials):
            return
        if error is not None:
            raise error
        raise UserError(f"all of {len(trials)} trials failed, the last one: {trials[-1].user_attrs['error']}.")
