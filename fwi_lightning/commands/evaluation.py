"""The end of a training run: scores of the best checkpoint beside the mean map, tables, pictures, the page."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from rich.console import Console

from fwi_lightning.data import GathersDataModule
from fwi_lightning.training.metrics import VelocityScores
from fwi_lightning.training.module import InversionModule
