"""Backbones of timm: stages, weights from elsewhere, and what is said when they do not fit."""

import time

import pytest
import timm
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.models import TimmUNet
from fwi_lightning.survey import OPENFWI
from tests.models.catalogue import make

SMALL = {"backbone": "convnext_atto", "decoder": [16, 16, 8]}


@pytest.mark.parametrize("name", ["convnext", "caformer"])
@pytest.mark.parametrize("setting", ["model.time_step=0.004", "model.time_step=0.001", "model.projector=spectral"])
def test_the_stages_have_72_36_18_and_9_cells_whatever_comes_in(name, setting):
    model = make(name, setting).eval()
    stages = model.net.encode(model.read(torch.randn(1, 5, 1000, 70)))
    assert [tuple(stage.shape[2:]) for stage in stages] == [(72, 72), (36, 36), (18, 18), (9, 9)]


def test_every_sample_is_read():
    """With 1 ms samples the stride is longer than the kernel was: no sample may fall between two steps."""
    model = TimmUNet(OPENFWI, **SMALL, time_step=0.001, amplitudes="raw").eval()
    gathers = torch.zeros(1, 5, 1000, 70, requires_grad=True)
    (model(gathers) / 1000).square().sum().backward()
    assert (gathers.grad[0, 0].abs().amax(dim=1) > 0).all()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with the keys and shapes of the published one: three colours in, a thousand classes out."""
    torch.manual_seed(5)
    source = timm.create_model("convnext_atto")
    path = tmp_path_factory.mktemp("weights") / "convnext_atto.pth"
    torch.save(source.state_dict(), path)
    return path, source.state_dict()


@pytest.mark.parametrize("projector", ["none", "spectral"])
def test_weights_of_a_file_arrive_in_all_layers_but_the_first(weights, projector):
    path, state = weights
    model = TimmUNet(OPENFWI, **SMALL, pretrained=str(path), projector=projector)
    found = model.net.backbone.state_dict()
    others = [key for key in found if not key.startswith("stem.0")]
    assert len(others) > 100
    assert all(torch.equal(found[key], state[key]) for key in others)
    # The first layer's colours are repeated over the inputs, scaled to the same response.
    first, colours = found["stem.0.weight"], state["stem.0.weight"]
    inputs = first.shape[1]
    torch.testing.assert_close(first[:, :3], colours * 3 / inputs)
    torch.testing.assert_close(first[:, 3:5], colours[:, :2] * 3 / inputs)


def test_a_checkpoint_does_not_need_the_file_of_weights(weights, tmp_path):
    from fwi_lightning.geology import FAMILIES
    from fwi_lightning.training.checkpoint import load_model
    from fwi_lightning.training.module import InversionModule

    path, _ = weights
    config = {"_target_": "fwi_lightning.models.TimmUNet", **SMALL, "pretrained": str(path)}
    loss, optimizer = {"_target_": "fwi_lightning.training.losses.L1Loss"}, {"_target_": "torch.optim.AdamW"}
    module = InversionModule(config, OPENFWI.to_dict(), loss, optimizer, None, FAMILIES)
    hparams = dict(module.hparams) | {"model": config | {"pretrained": "gone.pth"}}
    torch.save({"state_dict": module.state_dict(), "hyper_parameters": hparams}, tmp_path / "a.ckpt")
    gathers = torch.randn(1, 5, 1000, 70)
    assert torch.equal(load_model(tmp_path / "a.ckpt").predict(gathers), module.model.predict(gathers))


def test_weights_of_another_architecture_are_refused_with_counts(weights):
    path, state = weights
    with pytest.raises(
        UserError,
        match=rf"does not hold the weights of convnext_femto: \d+ of its \d+ tensors .* the file has {len(state)}",
    ):
        TimmUNet(OPENFWI, backbone="convnext_femto", pretrained=str(path))


def test_a_file_that_is_missing_or_holds_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.pth is not a file: give a .safetensors or .pth file"):
        TimmUNet(OPENFWI, **SMALL, pretrained="nowhere.pth")
    for suffix in ("pth", "safetensors"):
        (tmp_path / f"text.{suffix}").write_text("hello")
        with pytest.raises(UserError, match=r"holds no weights that can be read"):
            TimmUNet(OPENFWI, **SMALL, pretrained=str(tmp_path / f"text.{suffix}"))


def test_without_a_network_the_hub_is_given_up_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    begun = time.monotonic()
    with pytest.raises(UserError, match=r"does not answer .*: download model.safetensors of timm/convnext_atto"):
        TimmUNet(OPENFWI, **SMALL, pretrained=True)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "cafomer_s18"}, "cafomer_s18 is no model of timm .*: did you mean .*caformer_s18"),
        ({"backbone": "vit_tiny_patch16_224"}, "vit_tiny_patch16_224"),
        ({"backbone": "resnet18"}, "resnet18 has strides"),
        ({"backbone": "convnext_atto", "decoder": [16]}, r"needs 3 numbers of channels, such as .*, got \[16\]"),
        ({"backbone": "convnext_atto", "decoder": [16, 0, 8]}, r"such as \[256,128,64\], got \[16, 0, 8\]"),
        (
            {"backbone": "convnext_atto", "drop_path": 1.0},
            "drop_path must be at least 0 and less than 1, got 1.0",
        ),
    ],
)
def test_backbones_that_do_not_fit_are_named(settings, message):
    with pytest.raises(UserError, match=message):
        TimmUNet(OPENFWI, **settings)


def test_eva_reads_shots_side_by_side():
    model = make("eva02").eval()
    seen = []
    model.net.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    embed = model.net.backbone.patch_embed
    embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    gathers = torch.randn(1, 5, 1000, 70)
    model(gathers)
    image = seen[0]
    assert image.shape == (1, 1, 252, 350)
    read = model.transform(gathers)
    assert torch.equal(image[0, 0, :250, 140:210], read[0, 2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.patch=400"], "model.patch must be 1 to 250 for a 250 x 350 image, got 400"),
        (["model.backbone=caformer_s18"], "caformer_s18 is no EVA02"),
    ],
)
def test_settings_of_eva_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        make("eva02", *settings)
