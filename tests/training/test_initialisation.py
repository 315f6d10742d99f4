"""init=: exactly the tensors that agree in name and shape, bit for bit, and counted right."""

import pytest
import torch

from fwi_lightning.errors import UserError
from fwi_lightning.models import InversionNet, ResidualUNet, UNet, VelocityModel
from fwi_lightning.survey import Survey
from fwi_lightning.training.initialisation import find_weights, initialise

SURVEY = Survey(samples=400)
FAMILIES = ["FlatVel_A", "CurveFault_B"]


def saved(model: VelocityModel, path, families=FAMILIES, **more):
    parameters = {"model": {"_target_": "fwi_lightning.models.X"}, "survey": model.survey.to_dict()}
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": parameters | {"families": families}} | more, path)
    return path


def unet(seed: int, **options) -> ResidualUNet:
    torch.manual_seed(seed)
    return ResidualUNet(SURVEY, **{"width": 4, "projector": "spectral"} | options)


def changed(model: VelocityModel, before: dict[str, torch.Tensor]) -> set[str]:
    return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}


def snapshot(model: VelocityModel) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_the_same_model_takes_all_but_the_scale_of_its_data(tmp_path):
    old, new = unet(0), unet(1)
    for value in old.state_dict().values():
        value += 1  # statistics and counters too
    new.transform.scale.fill_(7)
    matches = initialise(new, saved(old, tmp_path / "old.ckpt"))
    for key, value in new.state_dict().items():
        assert torch.equal(value, old.state_dict()[key]) == (key != "transform.scale"), key
    assert (new.transform.scale == 7).all()
    total = len(old.state_dict()) - 1
    assert str(matches) == f"{total} of {total} tensors from {tmp_path / 'old.ckpt'}"


def test_another_model_takes_the_projector_alone(tmp_path):
    old = unet(0)
    old.projector.mix.weight.data += 1
    torch.manual_seed(1)
    new = UNet(SURVEY, width=8, projector="spectral")
    before = snapshot(new)
    file = saved(old, tmp_path / "old.ckpt")
    matches = initialise(new, file)
    assert changed(new, before) <= {key for key in before if key.startswith("projector.")}
    for key, value in old.projector.state_dict().items():
        assert torch.equal(new.projector.state_dict()[key], value)
    # 4 parameters of the projector and its norm, an affine norm's weight and bias among them, and 3 buffers of the norm
    assert [key.split(".")[0] for key in matches.loaded] == ["projector"] * 8
    text = str(matches)
    assert text.startswith(f"8 of {len(before) - 1} tensors from {file}; new: net.body (")
    assert "other shape: net.stem (2)" in text


def test_tensors_of_another_shape_stay_as_they_were(tmp_path):
    old, new = unet(0, levels=2), unet(1, levels=3, uncertainty_head=True)
    before = snapshot(new)
    matches = initialise(new, saved(old, tmp_path / "old.ckpt"))
    assert {key for key in matches.other_shape if key.startswith("net.head")} == {
        "net.head.body.5.weight",
        "net.head.body.5.bias",
    }
    assert {key.split(".")[2] for key in matches.new if key.startswith("net.down")} == {"1"}
    assert changed(new, before) <= set(matches.loaded)
    assert len(matches.loaded) + len(matches.new) + len(matches.other_shape) == len(before) - 1
    assert torch.equal(new.net.stem.project.weight, old.net.stem.project.weight)


def test_a_family_head_is_taken_only_for_the_same_families(tmp_path):
    old = unet(0, family_head=True, families=FAMILIES)
    file = saved(old, tmp_path / "old.ckpt")
    same = unet(1, family_head=True, families=FAMILIES)
    assert "family_head.weight" in initialise(same, file).loaded
    other = unet(1, family_head=True, families=FAMILIES[::-1])
    matches = initialise(other, file)
    assert {key for key in matches.new if key.startswith("family_head")} == {"family_head.weight", "family_head.bias"}
    assert not torch.equal(other.family_head.weight, old.family_head.weight)


def test_what_a_pretraining_left_idle_is_not_taken(tmp_path):
    old, new = unet(0), unet(1)
    trained = [key for key in old.state_dict() if not key.startswith(("net.up", "net.head"))]
    before = snapshot(new)
    matches = initialise(new, saved(old, tmp_path / "last.ckpt", trained=trained))
    assert set(matches.loaded) == set(trained) - {"transform.scale"}
    assert not {key for key in changed(new, before) if key.startswith(("net.up", "net.head"))}


def test_wrong_files_are_refused_in_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"has no tensor in common with this model \(it is of X\)"):
        initialise(InversionNet(SURVEY, time_step=0.004), saved(unet(0), tmp_path / "old.ckpt"))
    shorter = ResidualUNet(Survey(samples=200), width=4)
    before = snapshot(shorter)
    with pytest.raises(UserError, match=r"reads records of 100 samples, this model 50: use the same physics.samples"):
        initialise(shorter, tmp_path / "old.ckpt")
    assert not changed(shorter, before)
    for text in ("no checkpoint", "simulating: 5000 samples to go", "shallow_unet, fold 0", "\x80\x02}q", ""):
        (tmp_path / "text.ckpt").write_text(text)
        with pytest.raises(UserError, match="is not a checkpoint that can be read: give init= a file"):
            initialise(shorter, tmp_path / "text.ckpt")
    torch.save({"weights": torch.ones(1)}, tmp_path / "foreign.ckpt")
    with pytest.raises(UserError, match="is a checkpoint of another program: give init= a file"):
        initialise(shorter, tmp_path / "foreign.ckpt")


def test_a_family_means_the_file_of_its_model(tmp_path):
    folder = tmp_path / "pretrained"
    with pytest.raises(UserError, match=r"all.unet.ckpt, which does not exist \(there is nothing yet\)"):
        find_weights("all", "unet", folder)
    for family in ("all", "Style_A"):
        (folder / family).mkdir(parents=True)
        (folder / family / "unet.ckpt").touch()
    assert find_weights("Style_A", "unet", folder) == folder / "Style_A" / "unet.ckpt"
    with pytest.raises(UserError, match=r"\(there is .*Style_A.unet.ckpt, .*all.unet.ckpt\): make it with python -m"):
        find_weights("Style_A", "resunet5", folder)
    given = folder / "all" / "unet.ckpt"
    assert find_weights(given, "resunet5", folder) == given
    with pytest.raises(
        UserError, match=r"init=no/such.ckpt is not a file: give a checkpoint of this project, a family"
    ):
        find_weights("no/such.ckpt", "unet", folder)
