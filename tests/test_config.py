import pytest
import torch
from omegaconf import OmegaConf

from fwi_lightning.config import build, known_settings, plain
from fwi_lightning.data import SyntheticDataModule
from fwi_lightning.errors import UserError
from fwi_lightning.survey import Survey


def test_builds_nested_objects_from_a_configuration():
    config = OmegaConf.create(
        {"_target_": "torch.nn.Sequential", "x": 1, "loss": {"_target_": "torch.nn.L1Loss", "reduction": "sum"}}
    )
    loss = build(config.loss)
    assert isinstance(loss, torch.nn.L1Loss)
    assert loss.reduction == "sum"


def test_extra_arguments_arrive_as_they_are():
    weights = [torch.nn.Parameter(torch.ones(2))]
    optimizer = build({"_target_": "torch.optim.AdamW", "lr": 0.5, "betas": [0.8, 0.9]}, params=weights)
    assert optimizer.param_groups[0]["params"][0] is weights[0]
    assert optimizer.defaults["lr"] == 0.5


def test_configuration_without_target_stays_plain():
    assert build({"a": [1, {"b": 2}]}) == {"a": [1, {"b": 2}]}
    assert type(plain(OmegaConf.create({"a": [1]}))["a"]) is list


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.run",
        "torch.load",  # not under an allowed prefix
        "fwi_lightning.commands.environment.subprocess.run",  # an allowed prefix in front of a foreign function
        "fwi_lightning.config.build",  # ours, but not a class
        "fwi_lightning.config.Mapping",  # a class, but not ours
        "fwi_lightning.models.Nothing",
        "fwi_lightning.nowhere.Nothing",
        7,
    ],
)
def test_refuses_targets_that_are_not_classes_of_allowed_packages(target):
    with pytest.raises(UserError, match="_target_"):
        build({"outer": {"_target_": target}})


def test_names_the_setting_that_does_not_exist_and_those_that_do():
    with pytest.raises(UserError, match=r"no setting 'spacin'. Did you mean spacing\? It has: grid, spacing"):
        build({"_target_": "fwi_lightning.survey.Survey", "spacin": 5.0})


def test_settings_that_a_class_hands_on_are_those_of_the_class_above():
    known = known_settings(SyntheticDataModule)
    assert known[0] == "cache"
    assert {"survey_seed", "batch_size", "folds"} <= set(known)
    assert "settings" not in known
    with pytest.raises(UserError, match=r"no setting 'batchsize'. Did you mean batch_size\?"):
        build({"_target_": "fwi_lightning.data.SyntheticDataModule", "batchsize": 3})


def test_names_the_setting_that_is_missing():
    with pytest.raises(UserError, match="ResidualUNet needs the setting 'survey'"):
        build({"_target_": "fwi_lightning.models.ResidualUNet"})


def test_errors_of_the_class_pass_through():
    with pytest.raises(UserError, match="spacing must be a positive number"):
        build({"_target_": "fwi_lightning.survey.Survey", "spacing": -1.0})
    assert build({"_target_": "fwi_lightning.survey.Survey", "spacing": 5.0}) == Survey(spacing=5.0)
