"""What a run was made with: enough to make it again."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

PACKAGES = ("fwi-lightning", "torch", "lightning", "numpy", "numba", "hydra-core", "torchmetrics")


def environment() -> dict[str, str]:
    """Versions, git commit, processor and accelerator, as text by name."""
    facts = {name: version(name) for name in PACKAGES}
    facts["python"] = platform.python_version()
    facts["commit"] = _commit()
    facts["processor"] = f"{os.cpu_count()} cores, {_processor()}"
    facts["accelerator"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return facts


def _commit() -> str:
    """The commit of the checkout, with "+ changes" if files differ from it."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (" + changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
