"""What every model of conf/model must do: answer, learn, be halved, be saved, and stay what it was."""

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from timm.layers import DropPath

from fwi_lightning.errors import UserError
from fwi_lightning.models import VelocityModel
from fwi_lightning.survey import OPENFWI, Survey
from fwi_lightning.training.checkpoint import load_model
from fwi_lightning.training.module import InversionModule
from tests.models.catalogue import NAMES, make, make_module, write_checkpoint

REFERENCES = Path(__file__).with_name("references.json")
"""`reference` of each model at each width; made again by `uv run python -m tests.models.test_catalogue [NAME ...]`."""

HEADS = ["model.uncertainty_head=true", "model.family_head=true"]
WIDTHS = [pytest.param(False, id="reduced"), pytest.param(True, id="full", marks=pytest.mark.slow)]


def record(count: int, survey: Survey = OPENFWI) -> torch.Tensor:
    """Gathers of a formula, the same on every machine: waves that cross each other."""
    shape = (count, *survey.gathers_shape)
    sample, shot, time, receiver = np.ogrid[tuple(slice(size) for size in shape)]
    waves = np.cos(0.09 * time - 0.21 * receiver * (shot - 2) + sample) + np.sin(0.031 * time + 0.17 * receiver)
    return torch.from_numpy(waves * np.exp(-time / 400)).float()


def reference(model: VelocityModel) -> tuple[float, float]:
    """The maps of the first network output, weighed by another formula and summed, and their standard deviation.

    On the label scale: around 3000 m/s float32 rounds away what is looked for.
    """
    with torch.no_grad():
        output = model.net(model.read(record(1)))[0, 0].double()
    row, column = np.ogrid[: output.shape[0], : output.shape[1]]
    weights = torch.from_numpy(1 + np.cos(0.7 * row + 0.3 * column) + np.sin(0.11 * row * column))
    return (output * weights).mean().item(), output.std().item()


@pytest.fixture(scope="module", params=WIDTHS)
def full(request) -> bool:
    return request.param


@pytest.fixture(scope="module", params=NAMES)
def drawn(request, full) -> InversionModule:
    """A model with both heads in its module, which tests must leave as it is."""
    return make_module(request.param, *HEADS, full=full).eval()


@pytest.fixture(scope="module")
def exact(drawn) -> torch.Tensor:
    return drawn.model.predict(record(1))


def test_it_answers_in_metres_per_second_and_every_weight_learns(drawn):
    model = copy.deepcopy(drawn.model).train()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.drop_prob = 0.0  # a branch left out learns nothing
    answer = model.answer(record(2))
    assert answer.velocity.shape == answer.scale.shape == (2, 1, 70, 70)
    assert answer.family.shape == (2, 10)
    assert 1000 < answer.velocity.mean() < 5000
    assert (answer.scale > 0).all()
    sum((value / 1000).square().mean() for value in answer if value is not None).backward()
    weights = dict(model.named_parameters())
    assert [name for name, weight in weights.items() if weight.grad is None or not weight.grad.any()] == []
    assert [name for name, weight in weights.items() if not weight.grad.isfinite().all()] == []


@pytest.mark.parametrize("how", ["autocast", "lower"])
def test_bfloat16_answers_nearly_the_same_in_float32(drawn, exact, how):
    if how == "lower":
        half = copy.deepcopy(drawn.model).lower(torch.bfloat16).predict(record(1))
    else:
        with torch.autocast("cpu", torch.bfloat16):
            half = drawn.model.answer(record(1)).velocity.detach()
    assert half.dtype == torch.float32
    # What the layers lose, and the rounding of the last one's output, which stands for 3000 m/s where it is 0.
    allowed = 0.15 * exact.std() + 2**-8 * (exact - 3000).abs().max()
    assert 0 < (half - exact).square().mean().sqrt() < allowed


def test_a_checkpoint_gives_back_the_very_same_maps(drawn, exact, tmp_path):
    changed = copy.deepcopy(drawn)
    for value in changed.state_dict().values():
        if value.is_floating_point():
            value.mul_(1.01)  # no weight and no buffer is what a new model has
    loaded = load_model(write_checkpoint(changed, tmp_path / "a.ckpt"))
    expected = changed.model.predict(record(1))
    assert torch.equal(loaded.predict(record(1)), expected)
    assert not torch.equal(expected, exact)


def test_it_is_what_it_was(drawn, full, request):
    name = request.node.callspec.params["drawn"]
    known = json.loads(REFERENCES.read_text())["full" if full else "reduced"]
    if name not in known:
        pytest.fail(
            f"model={name} has no reference number yet: run `uv run python -m tests.models.test_catalogue {name}` and "
            f"commit {REFERENCES.name}."
        )
    value, deviation = reference(drawn.model)
    # Another processor adds in another order: up to 2e-5 of the deviation, oneDNN held at SSE4.1 or AVX2.
    assert value == pytest.approx(known[name], abs=1e-4 * deviation), (
        f"model={name} answers otherwise than before: if that is meant, run `uv run python -m "
        f"tests.models.test_catalogue {name}`."
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_wide_line_is_read_or_refused(name):
    survey = Survey.surface(190)
    if name == "inversionnet":
        with pytest.raises(UserError, match=r"makes maps of \(70, 70\), the survey's grid is \(70, 190\)"):
            make(name, survey=survey)
        return
    assert make(name, survey=survey).predict(record(1, survey)).shape == (1, 1, 70, 190)


def measure(names: list[str]) -> Iterator[tuple[str, str, float]]:
    """The reference of each model at each width."""
    for name in names:
        for width in ("reduced", "full"):
            module = make_module(name, *HEADS, full=width == "full").eval()
            yield width, name, reference(module.model)[0]


if __name__ == "__main__":
    table = json.loads(REFERENCES.read_text()) if REFERENCES.is_file() else {"reduced": {}, "full": {}}
    for width, name, value in measure(sys.argv[1:] or NAMES):
        table[width][name] = float(f"{value:.8g}")
        print(width, name, table[width][name], flush=True)
    REFERENCES.write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")
