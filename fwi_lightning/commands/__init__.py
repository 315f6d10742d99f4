"""What train.py, predict.py and `python -m fwi_lightning COMMAND` call."""

from __future__ import annotations

import difflib
import importlib
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fwi_lightning.errors import UserError

COMMANDS = {
    "train": ("fwi_lightning.commands.train", "train a model, test its best checkpoint, write the report"),
    "pretrain": ("fwi_lightning.commands.pretrain", "weights to begin with, for train.py init=..."),
    "refiner": ("fwi_lightning.commands.refiner", "train a second network that corrects the maps of a first one"),
    "predict": ("fwi_lightning.commands.predict", "velocity maps of recorded gathers"),
    "calibrate": (
        "fwi_lightning.commands.calibrate",
        "find out what a checkpoint's answers are worth, and store it in it",
    ),
    "adapt": ("fwi_lightning.commands.adapt", "fine-tune a model to gathers without maps"),
    "crossval": ("fwi_lightning.commands.crossval", "predict every fold by the run that held it out, and score them"),
    "ensemble": (
        "fwi_lightning.commands.ensemble",
        "one model of several, weighed on what they did not see",
    ),
    "explore": ("fwi_lightning.commands.explore", "look at a data set: what is in it, and what is wrong with it"),
    "simulate": ("fwi_lightning.commands.simulate", "write a survey of drawn maps and their gathers"),
    "shard": ("fwi_lightning.commands.shard", "write data as WebDataset shards, for data=shards"),
    "export": ("fwi_lightning.commands.export", "the model of a checkpoint alone, in half precision, with its card"),
    "convert": ("fwi_lightning.commands.convert", "OpenFWI's own InversionNet as a checkpoint of ours"),
    "geology": ("fwi_lightning.commands.geology", "contact sheet and statistics of drawn or recorded maps"),
}
"""Name of each command: the module whose `main(config)` does it, and what it does."""

PACKAGE = Path(__file__).resolve().parent.parent
CONF = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())
"""The configuration: beside the package in a checkout, inside it in an installed wheel."""


def run(command: str, words: Sequence[str] | None = None) -> None:
    """Run a command with the settings of `conf/COMMAND.yaml` and of the command line.

    A mistake of the user's ends with one sentence and exit code 1, an interruption with code 130; anything else is a
    defect of ours and shows its traceback.

    Args:
        command: A name in `COMMANDS`.
        words: The settings. Default: the words after the script's name.
    """
    line = sys.argv
    # Hydra would print its own kind of message and swallow the exception.
    os.environ["HYDRA_FULL_ERROR"] = "1"

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name=command)
    def entry(config: DictConfig) -> float | None:
        sys.argv = line  # Lightning starts the processes of further devices with it
        try:
            score: float | None = importlib.import_module(COMMANDS[command][0]).main(config)
            return score
        except (UserError, OmegaConfBaseException) as error:
            # Of several runs the others are not to end with this one, which an exit would do.
            sentence = str(error) if isinstance(error, UserError) else explain(error, command)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise UserError(sentence) from error
            _remove_empty(Path(HydraConfig.get().runtime.output_dir))
            _fail(sentence)
        except BrokenPipeError:  # the reader of `... | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(141)

    if words is not None:
        sys.argv = [line[0], *words]
    for word in sys.argv[1:]:
        if word.lstrip("+~").startswith("="):
            _fail(f"{word!r} has no key: settings are written key=value.")
    try:
        entry()
    except UserError as error:
        _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        _fail(explain(error, command))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename!s} cannot be written ({error.strerror}): choose another folder.")
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        sys.exit(130)


def explain(error: Exception, command: str) -> str:
    """A sentence for what Hydra says about a wrong setting, with the settings that there are."""
    text = str(error).strip()
    if isinstance(error, OverrideParseException):
        return f"{text.splitlines()[0]} in {error.override!r}: settings are written key=value."
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown and isinstance(error, ConfigCompositionException):
        key = unknown[1]
        settings, (parent, _, name) = _chosen(command), key.rpartition(".")
        if "." in parent and OmegaConf.select(settings, parent, default="") is None:
            return (
                f"{parent} is off here (null), so it has no {name!r}: give all of its settings at once, "
                f"{parent}={{{name}:...}}, or choose another {parent.partition('.')[0]}=NAME that has it on."
            )
        known = _known_keys(settings, parent)
        nearest = difflib.get_close_matches(key, known, n=1)
        hint = f" Did you mean {nearest[0]}?" if nearest else ""
        return f"there is no setting {key!r}.{hint} There are: {', '.join(known)}."
    missing = re.search(r"Missing mandatory value: (\S+)", text)
    if missing:
        return f"{missing[1]} is needed: add {missing[1]}=... to the command."
    return " ".join(line.strip() for line in text.splitlines() if line.strip() and "HYDRA_FULL_ERROR" not in line)


def _chosen(command: str) -> DictConfig:
    """The command's defaults, with the files that the command line chooses."""
    choices = [word for word in sys.argv[1:] if re.fullmatch(r"\w+=\w+", word) and (CONF / word.split("=")[0]).is_dir()]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose(command, choices)


def _known_keys(settings: DictConfig, parent: str) -> list[str]:
    """The settings below a dotted key, or all of the first level if it has none."""
    found = OmegaConf.select(settings, parent) if parent else settings
    if not isinstance(found, DictConfig):
        parent, found = "", settings
    return [f"{parent}.{name!s}" if parent else str(name) for name in found]


def _remove_empty(folder: Path) -> None:
    """Remove a run folder that nothing was written to."""
    if folder.resolve() != Path.cwd():
        with suppress(OSError):  # it is not empty, or not there
            folder.rmdir()


def _fail(sentence: str) -> NoReturn:
    # An error in a DataLoader worker arrives with that process's traceback in front.
    sentence = sentence.rsplit("UserError: ", 1)[-1].strip()
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(1)


def _register_resolvers() -> None:
    """Functions for the configuration files.

    `${columns:70}` counts, `${run_folder:...}` finds a run's folder, `${half_precision:}` a machine's half precision.
    """
    OmegaConf.register_new_resolver("columns", lambda count: list(range(count)), replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)
    OmegaConf.register_new_resolver("half_precision", half_precision, replace=True)


def run_folder(ckpt: str | None, fresh: str) -> str:
    """The folder of a run: that of the checkpoint to go on from, else a fresh one.

    Args:
        ckpt: RUN/checkpoints/NAME.ckpt, or RUN itself, or None.
        fresh: Folder for a new run.
    """
    if ckpt:
        folder = Path(ckpt) if Path(ckpt).is_dir() else Path(ckpt).parent
        if folder.name == "checkpoints" and folder.is_dir():
            return str(folder.parent)
        if folder == Path(ckpt):
            return str(folder)
    return fresh


def half_precision() -> str:
    """Float16 where there is a GPU, else bfloat16: float16 needs a GPU to train."""
    import torch  # not needed to list the commands

    return "16-mixed" if torch.cuda.is_available() else "bf16-mixed"


# Here and not in `run`: a job of a sweep in another process imports this module and needs them too.
_register_resolvers()
