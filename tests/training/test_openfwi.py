"""OpenFWI's InversionNet, written down here once more by the names in its files, answers as the converted one does."""

from __future__ import annotations

import argparse
import math

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.nn import functional

from fwi_lightning import load_model
from fwi_lightning.commands import convert as command
from fwi_lightning.errors import UserError
from fwi_lightning.models import InputTransform
from fwi_lightning.survey import OPENFWI

LEAST, MOST = -27.11, 55.10  # curvevel-a in dataset_config.json of github lanl/OpenFWI
# name: (inputs, outputs, kernel, stride, padding), as in network.py of github lanl/OpenFWI
DOWN = {
    "convblock1": (5, 32, (7, 1), (2, 1), (3, 0)),
    "convblock2_1": (32, 64, (3, 1), (2, 1), (1, 0)),
    "convblock2_2": (64, 64, (3, 1), (1, 1), (1, 0)),
    "convblock3_1": (64, 64, (3, 1), (2, 1), (1, 0)),
    "convblock3_2": (64, 64, (3, 1), (1, 1), (1, 0)),
    "convblock4_1": (64, 128, (3, 1), (2, 1), (1, 0)),
    "convblock4_2": (128, 128, (3, 1), (1, 1), (1, 0)),
    "convblock5_1": (128, 128, (3, 3), (2, 2), (1, 1)),
    "convblock5_2": (128, 128, (3, 3), (1, 1), (1, 1)),
    "convblock6_1": (128, 256, (3, 3), (2, 2), (1, 1)),
    "convblock6_2": (256, 256, (3, 3), (1, 1), (1, 1)),
    "convblock7_1": (256, 256, (3, 3), (2, 2), (1, 1)),
    "convblock7_2": (256, 256, (3, 3), (1, 1), (1, 1)),
    "convblock8": (256, 512, (8, 9), (1, 1), (0, 0)),
}
UP = {
    "deconv1": (512, 512, 5, 2, 0),
    "deconv2": (512, 256, 4, 2, 1),
    "deconv3": (256, 128, 4, 2, 1),
    "deconv4": (128, 64, 4, 2, 1),
    "deconv5": (64, 32, 4, 2, 1),
}


@pytest.fixture(scope="module")
def state():
    """Random weights by their names."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    weights = {}

    def block(name, outputs, *kernel):
        fan = math.prod(kernel) / max(kernel[:2])
        weights[f"{name}.layers.0.weight"] = draw(*kernel) * math.sqrt(2 / fan)
        weights[f"{name}.layers.0.bias"] = draw(outputs) * 0.1
        weights[f"{name}.layers.1.weight"] = 1 + draw(outputs) * 0.1
        weights[f"{name}.layers.1.bias"] = draw(outputs) * 0.1
        weights[f"{name}.layers.1.running_mean"] = draw(outputs) * 0.1
        weights[f"{name}.layers.1.running_var"] = draw(outputs).abs() + 0.5
        weights[f"{name}.layers.1.num_batches_tracked"] = torch.tensor(7)

    for name, (inputs, outputs, kernel, _, _) in DOWN.items():
        block(name, outputs, outputs, inputs, *kernel)
    for name, (inputs, outputs, kernel, _, _) in UP.items():
        block(f"{name}_1", outputs, inputs, outputs, kernel, kernel)
        block(f"{name}_2", outputs, outputs, outputs, 3, 3)
    block("deconv6", 1, 1, 32, 3, 3)
    return weights


def theirs(state, gathers):
    """Their pipeline, from gathers to m/s."""

    def norm(x, name):
        running = state[f"{name}.layers.1.running_mean"], state[f"{name}.layers.1.running_var"]
        return functional.batch_norm(x, *running, state[f"{name}.layers.1.weight"], state[f"{name}.layers.1.bias"])

    def convolve(x, name, stride, padding):
        x = functional.conv2d(x, state[f"{name}.layers.0.weight"], state[f"{name}.layers.0.bias"], stride, padding)
        return norm(x, name)

    low, high = -math.log1p(-LEAST), math.log1p(MOST)
    x = (torch.sign(gathers) * torch.log1p(torch.abs(gathers)) - low) / (high - low)
    x = (x - 0.5) * 2
    for name, (_, _, _, stride, padding) in DOWN.items():
        x = functional.leaky_relu(convolve(x, name, stride, padding), 0.2)
    for name, (_, _, _, stride, padding) in UP.items():
        weight, bias = state[f"{name}_1.layers.0.weight"], state[f"{name}_1.layers.0.bias"]
        x = functional.conv_transpose2d(x, weight, bias, stride, padding)
        x = functional.leaky_relu(norm(x, f"{name}_1"), 0.2)
        x = functional.leaky_relu(convolve(x, f"{name}_2", 1, 1), 0.2)
    x = torch.tanh(convolve(functional.pad(x, [-5, -5, -5, -5]), "deconv6", 1, 1))
    return (x / 2 + 0.5) * 3000 + 1500


@pytest.fixture(scope="module")
def gathers():
    return torch.from_numpy(np.random.default_rng(1).normal(0, 3, (2, *OPENFWI.gathers_shape)).astype(np.float32))


def convert(path, output, family="CurveVel_A"):
    command.main(OmegaConf.create({"ckpt": str(path), "family": family, "output": str(output)}))
    return load_model(output)


@pytest.fixture(scope="module")
def expected(state, gathers):
    answer = theirs(state, gathers)
    assert answer.std() > 100, "the comparison says something"
    return answer


def test_what_their_script_writes_answers_as_theirs(state, gathers, expected, tmp_path):
    content = {"model": state, "epoch": 119, "step": 5, "args": argparse.Namespace(dataset="curvevel-a", lr=1e-4)}
    torch.save(content, tmp_path / "cva.pth")
    model = convert(tmp_path / "cva.pth", tmp_path / "ours.ckpt")
    assert (model.predict(gathers) - expected).abs().max() < 0.1


def test_old_names_of_several_devices_without_the_rest(state, gathers, expected, tmp_path):
    old = {f"module.{name.replace('layers', 'Conv2DwithBN')}": value for name, value in state.items()}
    torch.save(old, tmp_path / "cva.pth")
    model = convert(tmp_path / "cva.pth", tmp_path / "ours.ckpt")
    assert (model.predict(gathers) - expected).abs().max() < 0.1
    model.transform = InputTransform(OPENFWI, 0.001, "official", "Style_B")
    assert (model.predict(gathers) - expected).abs().max() > 1, "the family's scale matters"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"model": {"convblock1.layers.0.weight": torch.zeros(1)}}, "is not InversionNet as OpenFWI has it"),
        ({"model": {}}, "holds no weights"),
        ({"model": print}, "cannot be read as weights alone"),
    ],
)
def test_another_file(content, sentence, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=sentence):
        convert(tmp_path / "other.pth", tmp_path / "ours.ckpt")
    assert not (tmp_path / "ours.ckpt").exists()


def test_an_unknown_family(tmp_path):
    with pytest.raises(UserError, match="family must be one of FlatVel_A"):
        convert(tmp_path / "cva.pth", tmp_path / "ours.ckpt", family="flatvel-a")
