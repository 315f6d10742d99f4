"""The card of a model that is handed on: what it was made of, how good it is, what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LIMITS = (
    "It knows one survey: five shots and 70 receivers over 700 m, 1 s of record, a 15 Hz Ricker wavelet; other records "
    "are refused by their shape, or answered wrongly.",
    "It has seen simulated, noise-free records of ten kinds of drawn maps. OpenFWI's maps are drawn otherwise, and "
    "field records have noise, other wavelets and attenuation: expect larger errors on both, and train on yours.",
    "It has seen velocities between 1500 and 4500 m/s. Its maps are smoother than the truth: boundary IoU says so.",
)


@dataclass(frozen=True)
class Card:
    """What a card is made of.

    Attributes:
        name: Of the model.
        settings: The run's config.yaml.
        survey: Settings of the simulated survey that it was trained on; empty if it was other data.
        environment: The run's environment.json.
        step: Optimiser steps.
        parameters: Numbers in the model.
        megabytes: Size of the file.
        samples: Samples of the data set, trained on and held out.
        scores: The last validation's scores, by logged name.
        validated: Optimiser steps before it.
    """

    name: str
    settings: Mapping[str, Any]
    survey: Mapping[str, Any]
    environment: Mapping[str, str]
    step: int
    parameters: int
    megabytes: float
    samples: int
    scores: Mapping[str, float]
    validated: int


def model_card(card: Card) -> str:
    """The card as Markdown."""
    settings, environment = card.settings, card.environment
    model = settings["model"]
    named = {name: model[name] for name in ("width", "levels", "coarseness") if name in model}
    size = "; ".join([environment["model"], *(f"{name} {value}" for name, value in named.items())])
    batch, folds = settings["data"]["batch_size"], settings["folds"]
    held = card.samples // folds
    facts = {
        "network": f"{model['_target_'].rsplit('.', 1)[-1]} ({size}), {card.parameters:,} numbers, "
        f"{card.megabytes:.1f} MB in float16",
        "trained on": f"{_data(card)}; about {held:,} of the {card.samples:,} held out to validate",
        "augmentation": ", ".join(settings["augment"]) or "none",
        "seed": f"{settings['seed']} (weights, order, folds)",
        "steps": f"{card.step:,} of {batch} samples ({card.step * batch:,} samples seen)" + _planned(card),
        "hardware": f"{environment['processor']}; accelerator: {environment['accelerator']}; "
        f"{settings['trainer']['precision']}",
        "software": f"fwi-lightning {environment['fwi-lightning']}, torch {environment['torch']}, commit "
        f"{environment['commit']}",
    }
    lines = [f"# Model card: {card.name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "## How good", "", *_scores(card), "", "## Limits", ""]
    lines += [f"- {limit}" for limit in LIMITS]
    lines += ["", "## Made by", "", "```bash", *_commands(card), "```", ""]
    return "\n".join(lines)


def _data(card: Card) -> str:
    survey = card.survey
    if not survey:
        return f"{card.samples:,} samples of data.root={card.settings['data'].get('root')}"
    thin = f", every {survey['time_step'] * 1000:g} ms" if "time_step" in survey else ""
    return (
        f"{card.samples:,} simulated maps of {len(survey['families'])} families, survey seed {survey['seed']}, shots "
        f"at columns {survey['survey']['shot_columns']}, {survey.get('dtype', 'float32')}{thin}"
    )


def _planned(card: Card) -> str:
    """That the schedule was not ended, where it was not."""
    planned = int(card.settings["trainer"]["max_steps"])
    return f", of {planned:,} planned: not trained to the end yet" if 0 < card.step < planned else ""


def _scores(card: Card) -> list[str]:
    if not card.scores:
        return ["Nothing was validated."]
    names = {"mae": "MAE (m/s)", "rmse": "RMSE (m/s)", "ssim": "SSIM", "boundary_iou": "boundary IoU"}
    names |= {"family_accuracy": "families named rightly", "expected_mae": "expected error (m/s)"}
    known = {said: card.scores[f"val/{name}"] for name, said in names.items() if f"val/{name}" in card.scores}
    families = {name.split("/")[2]: value for name, value in card.scores.items() if name.startswith("val/mae/")}
    later = "" if card.validated >= card.step else "; the weights here are later ones"
    lines = [f"On the held-out maps after {card.validated:,} steps{later}:", ""]
    lines += ["| " + " | ".join(known) + " |", "|" + "---:|" * len(known)]
    lines += ["| " + " | ".join(f"{value:.4g}" for value in known.values()) + " |", ""]
    if families:
        lines += ["| MAE (m/s) of | " + " | ".join(families) + " |", "|---|" + "---:|" * len(families)]
        lines += ["| | " + " | ".join(f"{value:.0f}" for value in families.values()) + " |", ""]
    return [*lines, "docs/scoreboard.md compares it with other models on maps that none of them was trained on."]


def _commands(card: Card) -> list[str]:
    """The commands that make the data and the model again."""
    commands = []
    if card.survey:
        survey = card.survey
        shots = ",".join(map(str, survey["survey"]["shot_columns"]))
        more = [f"{name}={survey[name]}" for name in ("time_step", "dtype") if name in survey]
        per_family = card.samples // len(survey["families"])
        commands.append(
            f"uv run python -m fwi_lightning simulate output={card.settings['data']['root']} "
            f"samples_per_family={per_family} samples_per_file={survey['samples_per_file']} seed={survey['seed']} "
            f"{' '.join(more)} 'physics.shot_columns=[{shots}]'"
        )
    begun = card.environment.get("begun by", card.environment["command"])
    commands.append(f"uv run python {begun}")
    if begun != card.environment["command"]:
        commands.append(f"uv run python {card.environment['command']}  # after each stop")
    return commands
