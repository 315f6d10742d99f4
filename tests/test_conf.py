"""The configuration files: every choice can be chosen, names what it builds, and explains its settings."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fwi_lightning.commands import COMMANDS, CONF, _register_resolvers
from fwi_lightning.config import find_class, known_settings

_register_resolvers()
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
CHOICES = [name.removesuffix(".yaml").split("/") for name in FILES if name.count("/") == 1]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_can_be_chosen_and_fits_its_class(group, choice):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        command = "predict" if group == "inference" else "train"
        config = compose(command, overrides=[f"{group}={choice}", *(["++data.root=x"] if command == "train" else [])])
    node = config.get(group)  # an experiment changes other groups and is none itself
    parts = node.values() if group in ("callbacks", "logger", "augment") else [node]
    for part in parts:
        if OmegaConf.is_dict(part) and "_target_" in part:
            known = known_settings(find_class(part["_target_"]))
            # data.root is added above to every choice; only some data modules have it
            others = {"_target_", "root"}
            if group == "scheduler":
                others |= {"interval", "monitor"}  # for Lightning: when to step
            assert known is None or set(part) - others <= set(known)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_configuration(command):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert compose(command)


@pytest.mark.parametrize("name", FILES)
def test_every_file_begins_by_saying_what_it_is_for(name):
    assert (CONF / name).read_text().startswith("# ")


@pytest.mark.parametrize(
    "name", [name for name in FILES if name.split("/")[0] in ("data", "augment", "model", "physics", "trainer")]
)
def test_every_setting_says_what_it_does(name):
    lines = [
        line
        for line in (CONF / name).read_text().splitlines()
        if line and not line.strip().startswith(("#", "_target_", "defaults:", "- "))
    ]
    assert [line for line in lines if "#" not in line] == []
