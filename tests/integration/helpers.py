"""How tests run the real commands, and the settings that make them take seconds."""

import os
import subprocess
import sys
from pathlib import Path

from fwi_lightning.commands import run

REPOSITORY = Path(__file__).parents[2]
SMALL = ["model.width=8", "data.batch_size=4", "physics.samples=400"]
SURVEY = ["families=[FlatVel_A,CurveFault_B]", "samples_per_family=10", "samples_per_file=2", "physics.samples=400"]


def command(name: str, *words: object) -> int:
    """Run a command in this process, as its script would; the exit code."""
    before = sys.argv
    sys.argv = [name, *map(str, words)]
    try:
        run(name)
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


def script(*words: object, folder: Path = REPOSITORY, **more) -> subprocess.CompletedProcess:
    """Run `python WORDS` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    line = [sys.executable, *map(str, words)]
    return subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, **more)
