"""A data module that makes its own data: maps drawn, gathers simulated, on first use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fwi_lightning.data.datamodule import GathersDataModule
from fwi_lightning.data.writing import survey_settings, write_survey
from fwi_lightning.geology import FAMILIES


class SyntheticDataModule(GathersDataModule):
    """A simulated survey of the ten families, made on first use and reused after.

    It lies in a folder of the cache whose name depends on all that decides its content, so that other
    settings, or another version of geology or physics, make another survey and never mix with this one.

    Args:
        cache: Folder for the simulated surveys. Default "cache/surveys".
        families: Families to draw. Default: all ten.
        samples_per_family: Maps drawn of each family; 1.4 MB and about 0.03 s of two cores each. Default 100.
        samples_per_file: Samples in a file; folds keep files together. Default 20.
        survey_seed: Of the maps. Default 0.
        **settings: As `GathersDataModule`, without `root` and `split`; another `seed` draws no other maps.

    Raises:
        UserError: If a number is out of range or a family unknown.
    """

    def __init__(
        self,
        cache: str = "cache/surveys",
        families: Sequence[str] | None = None,
        samples_per_family: int = 100,
        samples_per_file: int = 20,
        survey_seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(root=cache, **settings)
        del self.hparams["root"], self.hparams["split"]
        self.hparams.update(
            cache=cache,
            families=list(families or FAMILIES),
            samples_per_family=samples_per_family,
            samples_per_file=samples_per_file,
            survey_seed=survey_seed,
        )
        self.drawing: dict[str, Any] = {
            "families": list(families or FAMILIES),
            "samples_per_family": samples_per_family,
            "samples_per_file": samples_per_file,
            "seed": survey_seed,
            "survey": self.survey,
        }
        settings = survey_settings(**self.drawing)
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self.root = Path(cache) / f"{samples_per_family}x{len(settings['families'])}-{digest}"

    def prepare_data(self) -> None:
        """Simulate the survey, or what is missing of it. Lightning calls this in one process of each machine.

        Raises:
            UserError: As `write_survey`.
        """
        write_survey(self.root, **self.drawing)
        super().prepare_data()
