"""A study: its trials, which points are owed after a kill, and which one is tried next."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)
from optuna.samplers import RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from fwi_lightning.errors import UserError
from fwi_lightning.sweep.outcome import Outcome
from fwi_lightning.sweep.space import Space, describe
from fwi_lightning.sweep.storage import open_storage

DRAWS = 20
"""Draws of a sampler before another way to a point that was not tried is taken."""

DIRECTIONS = ("minimize", "maximize")

Point = dict[str, Any]


def open_study(name: str, url: str, direction: str, space: Space) -> optuna.Study:
    """Open a study, or begin it.

    Args:
        name: Of the study.
        url: As `open_storage`.
        direction: minimize or maximize.
        space: What is searched; kept with the study and compared when it is opened again.

    Raises:
        UserError: If the storage cannot be opened, or the study was begun with another space or direction.
    """
    if direction not in DIRECTIONS:
        raise UserError(f"hydra.sweeper.direction must be {' or '.join(DIRECTIONS)}, got {direction!r}.")
    storage = open_storage(url)
    towards = StudyDirection[direction.upper()]
    study = optuna.create_study(storage=storage, study_name=name, direction=towards, load_if_exists=True)
    texts = {key: distribution_to_json(found) for key, found in space.items()}
    differing = _differences(study, direction, texts)
    if differing:
        raise UserError(
            f"the study {name!r} was begun with another search: {'; '.join(differing)}. Repeat it as it was, or begin "
            "a new one with hydra.sweeper.study_name=NAME."
        )
    if "space" not in study.user_attrs:
        study.set_user_attr("space", json.dumps(texts))
    return study


def _differences(study: optuna.Study, direction: str, texts: Mapping[str, str]) -> list[str]:
    """What the study had otherwise."""
    differing = []
    if study.direction.name.lower() != direction:
        differing.append(f"direction was {study.direction.name.lower()}, now {direction}")
    before: dict[str, str] = json.loads(study.user_attrs.get("space", "null")) or dict(texts)
    for name in dict.fromkeys([*before, *texts]):
        # Parsed, since the text may be written otherwise by another release.
        was, now = (
            describe(json_to_distribution(found[name])) if name in found else "not searched"
            for found in (before, texts)
        )
        if was != now:
            differing.append(f"{name} was {was}, now {now}")
    return differing


def abandon_running(study: optuna.Study) -> int:
    """End the trials that a killed sweep left running; how many there were. Their points are owed."""
    left = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    for trial in left:
        Trial(study, trial._trial_id).set_user_attr("killed", True)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(left)


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that count towards the total: complete, pruned or failed, but not those that a kill ended."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and "killed" not in t.user_attrs]


def owed(study: optuna.Study) -> list[Point]:
    """Points of killed trials that no later trial tried again, in their order."""
    trials = study.get_trials(deepcopy=False)
    tried = {_key(trial.params) for trial in trials if "killed" not in trial.user_attrs}
    killed = {_key(trial.params): trial.params for trial in trials if "killed" in trial.user_attrs}
    return [point for key, point in killed.items() if key not in tried]


def draw(study: optuna.Study, space: Space, count: int, seed: int, startup: int) -> list[Point]:
    """Points to try next, none of which was tried before.

    They are drawn in a copy of the study in memory, so that draws which are not used leave no trace in it.

    Args:
        study: The study.
        space: What is searched.
        count: Points wanted.
        seed: Of the sampler.
        startup: Ended trials before the sampler goes by them; until then it draws at random.

    Returns:
        The points; fewer if the space has no more.
    """
    trials = study.get_trials(deepcopy=False)
    taken = {_key(trial.params) for trial in trials}
    # A resumed sampler with the first one's seed would draw the same points again; seed + count would make the
    # second draw of one study the first of another.
    state = int(np.random.SeedSequence([seed, len(taken)]).generate_state(1)[0])
    copy = optuna.create_study(direction=study.direction, sampler=TPESampler(seed=state, n_startup_trials=startup))
    copy.add_trials(trials)
    points: list[Point] = []
    for _ in range(count):
        point = _draw_new(copy, space, taken, state)
        if point is None:
            break
        taken.add(_key(point))
        points.append(point)
    return points


def _draw_new(copy: optuna.Study, space: Space, taken: set[Any], seed: int) -> Point | None:
    """A point that was not taken: by the study's sampler, else at random, else by going through all there are."""
    chosen = copy.sampler
    for sampler in (chosen, RandomSampler(seed=seed)):
        copy.sampler = sampler
        for _ in range(DRAWS):
            trial = copy.ask(space)
            if _key(trial.params) not in taken:
                copy.sampler = chosen
                return trial.params
            copy.tell(trial, state=TrialState.FAIL)
    copy.sampler = chosen
    free = [point for point in _all_points(space) if _key(point) not in taken]
    return free[np.random.default_rng(seed).integers(len(free))] if free else None


def size(space: Space) -> float:
    """How many points a space has; infinite with a continuous range."""
    return math.prod(len(values) if (values := _values(found)) is not None else math.inf for found in space.values())


def _all_points(space: Space) -> list[Point]:
    if size(space) == math.inf:
        return []
    values = [_values(found) or [] for found in space.values()]
    return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]


def _values(found: BaseDistribution) -> Sequence[Any] | None:
    """All values of a distribution; None of a continuous one."""
    if isinstance(found, CategoricalDistribution):
        return found.choices
    if isinstance(found, IntDistribution):
        return range(found.low, found.high + 1, found.step)
    assert isinstance(found, FloatDistribution)
    if found.step is None:
        return None
    return [found.low + found.step * place for place in range(round((found.high - found.low) / found.step) + 1)]


def begin(study: optuna.Study, space: Space, point: Point) -> int:
    """Enter a trial as running; its number."""
    # In one write: a trial that is asked for and then given its point could be killed in between.
    trial = optuna.trial.create_trial(state=TrialState.RUNNING, params=point, distributions=space)
    trial.datetime_start, trial.datetime_complete = datetime.now(), None
    study.add_trial(trial)
    return next(
        entered.number
        for entered in reversed(study.get_trials(deepcopy=False, states=[TrialState.RUNNING]))
        if entered.params == point
    )


def finish(study: optuna.Study, number: int, outcome: Outcome) -> None:
    """Enter how a trial ended."""
    if outcome.error:
        Trial(study, _identity(study, number)).set_user_attr("error", outcome.error)
    study.tell(number, outcome.score, outcome.state)


def running_trial(url: str, name: str, number: int, pruner: optuna.pruners.BasePruner) -> Trial:
    """A trial of a study, from within the job that runs it.

    Args:
        url: As `open_storage`.
        name: Of the study.
        number: Of the trial.
        pruner: What decides whether the trial is stopped.
    """
    study = optuna.load_study(study_name=name, storage=open_storage(url), pruner=pruner)
    return Trial(study, _identity(study, number))


def _identity(study: optuna.Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def _key(point: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in point.items()))
