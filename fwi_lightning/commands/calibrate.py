"""`python -m fwi_lightning calibrate`: what a checkpoint's answers are worth, found out on labelled data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rich
import torch
from omegaconf import DictConfig, OmegaConf

from fwi_lightning.commands.fitting import SETTINGS
from fwi_lightning.commands.predict import choose_device
from fwi_lightning.config import build, plain
from fwi_lightning.data import GathersDataModule, GathersDataset, find_parts
from fwi_lightning.data.progress import Progress
from fwi_lightning.errors import UserError
from fwi_lightning.inversion import Chain, State, build_steps
from fwi_lightning.inversion.calibrating import LEAST, Observations
from fwi_lightning.inversion.calibration import NETWORK, Calibration, read_calibration, write_calibration
from fwi_lightning.inversion.crf import UNKNOWN, fit_crf
from fwi_lightning.inversion.judging import LIT, MEMBERS, look, recall, remember
from fwi_lightning.inversion.steps import Step
from fwi_lightning.models import VelocityModel
from fwi_lightning.report.tables import records_table
from fwi_lightning.survey import Survey
from fwi_lightning.training.checkpoint import load_model

MORE = 4
"""Times as many samples decide on the random field."""


def main(config: DictConfig) -> None:
    """Fit a calibration and store it in the checkpoint; what it held of other steps stays.

    Args:
        config: conf/calibrate.yaml.

    Raises:
        UserError: If a setting, the checkpoint or the data cannot be used.
    """
    for name, least in (("batch_size", 1), ("samples", LEAST)):
        if config[name] < least:
            raise UserError(f"{name} must be at least {least}, got {config[name]}.")
    path = Path(config.ckpt)
    before = read_calibration(path)
    model = load_model(path, choose_device(config.device))
    dataset = _labelled(path, config.input, model.survey)
    steps = build_steps(plain(config.inference))
    found = calibrate(
        model, dataset, steps, config.samples, config.batch_size, config.crf, config.robust, before=before
    )
    write_calibration(path, found)
    describe(found)
    print(path)


def calibrate(
    model: VelocityModel,
    dataset: GathersDataset,
    steps: Mapping[str, Step] | None = None,
    samples: int = 200,
    batch_size: int = 16,
    crf: bool = True,
    robust: bool = False,
    before: Calibration | None = None,
) -> Calibration:
    """Predict labelled samples, simulate the predictions, and fit what their errors were.

    Args:
        model: The model.
        dataset: Labelled samples that it was not trained on.
        steps: Steps after the network; there is an expectation after each. Default: none.
        samples: How many at most, spread evenly. Default 200.
        batch_size: Samples at a time. Default 16.
        crf: Whether to fit a random field too. Default True.
        robust: Whether to its robust form. Default False.
        before: What is known already: a field for the steps to use, expectations of other steps to keep. Default: none.

    Raises:
        UserError: If there are too few samples.
    """
    if len(dataset) < LEAST:
        raise UserError(f"a calibration needs at least {LEAST} samples with their truth, got {len(dataset)}.")
    places = np.unique(np.linspace(0, len(dataset) - 1, samples).astype(int)).tolist()
    known = before or Calibration()
    if crf:
        # Its samples are not simulated, and a family is decided by few.
        more = np.unique(np.linspace(0, len(dataset) - 1, MORE * samples).astype(int)).tolist()
        known = Calibration(known.expectations, _field(model, dataset, more, batch_size, robust))
    observations: dict[str, Observations] = {}
    with Progress("calibrating", 0, len(places)) as progress:
        for start in range(0, len(places), batch_size):
            rows = [dataset[place] for place in places[start : start + batch_size]]
            truth = torch.stack([row["velocity"] for row in rows])

            def note(state: State, step: str, truth: torch.Tensor = truth) -> None:
                """Simulate the maps after a step, and add them with their errors."""
                look(state)
                remember(state, step)
                scale = None if state.answer is None else state.answer.scale
                observations.setdefault(step, Observations()).add(
                    state.velocity, truth, recall(state, step), scale, state.maps.get(MEMBERS), state.maps[LIT]
                )

            gathers = torch.stack([row["gathers"] for row in rows])
            answer = model.predict_answer(gathers, batch_size)
            state = State(
                gathers,
                answer.velocity,
                model.survey,
                network=lambda records: model.predict_answer(records, batch_size),
                answer=answer,
                families=model.families,
                calibration=known,
                named=tuple(dataset.families[row["family"]] for row in rows),
                note=progress.note,
            )
            chain = Chain(steps or {}, simulated=False, measured=True, after=note)
            if not chain.steps:
                note(state, NETWORK)
            chain.run(state)
            progress.advance(len(rows))
    fitted = {step: one.fit() for step, one in observations.items()}
    return Calibration({**known.expectations, **fitted}, known.crf)


def describe(calibration: Calibration) -> None:
    """Print how good the calibration is: by what each half of the samples says of the other."""
    table = [
        {
            "after": step,
            "samples": one.samples,
            "rank correlation of expected and true MAE": round(one.rank_correlation, 2),
            "errors within the uncertainty": f"{100 * one.coverage:.0f} %",
        }
        for step, one in calibration.expectations.items()
    ]
    rich.print(records_table(table).to_rich())
    if calibration.crf:
        on = [name or "samples of unknown family" for name in calibration.crf["families"]]
        change = calibration.crf["changes"][UNKNOWN]
        print(f"random field: MAE {change:+.1f} m/s over all; on for {', '.join(on) or 'no family'}")


def _field(
    model: VelocityModel, dataset: GathersDataset, places: list[int], batch_size: int, robust: bool
) -> dict[str, object]:
    """The random field fitted to the network's answers."""
    answers, truths, families = [], [], []
    for start in range(0, len(places), batch_size):
        rows = [dataset[place] for place in places[start : start + batch_size]]
        answers.append(model.predict_answer(torch.stack([row["gathers"] for row in rows]), batch_size))
        truths.append(torch.stack([row["velocity"] for row in rows]))
        families += [dataset.families[row["family"]] for row in rows]
    scales = [answer.scale for answer in answers if answer.scale is not None]
    scale = torch.cat(scales) if scales else None
    return fit_crf(torch.cat([answer.velocity for answer in answers]), torch.cat(truths), families, scale, robust)


def _labelled(path: Path, source: str | None, survey: Survey) -> GathersDataset:
    """Labelled samples of a folder, or those that the run of a checkpoint held out.

    Raises:
        UserError: If there are none.
    """
    if source is not None:
        return GathersDataset(find_parts(Path(source), survey=survey, labels=True))
    settings = path.parent.parent / SETTINGS
    if not settings.is_file():
        raise UserError(
            f"{path} does not lie in a run folder ({settings} is missing): give input= labelled data that it was not "
            "trained on."
        )
    config = OmegaConf.load(settings)
    data: GathersDataModule = build(
        config.data, survey=survey.to_dict(), fold=config.fold, folds=config.folds, seed=config.seed
    )
    data.prepare_data()
    data.setup("fit")
    return data.val_dataset
