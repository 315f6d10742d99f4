"""Training on maps that nobody has seen: drawn and simulated while training runs, other ones in each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from fwi_lightning.data.datamodule import GathersDataModule
from fwi_lightning.data.fresh_maps import SEEDS, FreshMaps
from fwi_lightning.data.synthetic import SyntheticDataModule
from fwi_lightning.data.training import Recorded, Source
from fwi_lightning.errors import UserError
from fwi_lightning.geology import FAMILIES


class FreshDataModule(SyntheticDataModule):
    """Trains on endless fresh maps; validates and tests on a survey that stays the same.

    Sample i of epoch e is drawn with a seed made of (seed, e, i): no map comes twice, a resumed run goes on with the
    maps that an uninterrupted one would have had, and the number of workers changes nothing. The gathers are
    simulated in the background by `num_workers` processes of one thread each, which keep two batches each ready;
    with 0 in the main process, on all its threads; with simulate_on="device" the workers only draw, and the training
    device simulates the whole batch.

    The held-out fold is that of the survey in `cache`, the same as `SyntheticDataModule`'s with the same settings,
    so that scores can be compared; or that of recorded data. Its other folds set the scale of the model's input and
    give the report's mean map; they are trained on as far as `fresh_share` leaves room.

    Args:
        root: Recorded data to validate and test on, and to train on with `fresh_share` below 1; as
            `GathersDataModule`. Default: the survey in `cache`.
        samples_per_epoch: Training samples in an epoch. Default 1200.
        fresh_share: Share of them that is fresh, 0 to 1. The rest are training samples of the survey or of `root`,
            each used once before any is used again. Default 1.
        families: Families of the fresh maps and of the survey in `cache`: names, for equal shares; or name to
            relative share, which counts for the fresh maps alone. Default: all ten, equally.
        **settings: As `SyntheticDataModule`.

    Raises:
        UserError: If a number is out of range or a family unknown.
    """

    def __init__(
        self,
        root: str | None = None,
        samples_per_epoch: int = 1200,
        fresh_share: float = 1.0,
        families: Sequence[str] | Mapping[str, float] | None = None,
        **settings: Any,
    ) -> None:
        shares = _shares(families)
        if not isinstance(samples_per_epoch, int) or samples_per_epoch < 1:
            raise UserError(f"samples_per_epoch must be a whole number of at least 1, got {samples_per_epoch!r}.")
        if not isinstance(fresh_share, Real) or not 0 <= fresh_share <= 1:
            raise UserError(f"fresh_share must be from 0 (nothing is fresh) to 1 (all is), got {fresh_share!r}.")
        super().__init__(families=list(shares), **settings)
        if self.balance.shares is not None:
            raise UserError("data=fresh has its shares in data.families: leave out data.balance.")
        for name, value in (("seed", self.seed), ("survey_seed", self.drawing["seed"])):
            if value >= SEEDS:
                raise UserError(f"{name} must be below 2**64, because fresh maps take the seeds above, got {value}.")
        self.mixing: dict[str, Any] = {"shares": shares, "samples": samples_per_epoch, "fresh_share": fresh_share}
        if root is not None:
            self.root = Path(root)
        self.hparams.update(root=root, samples_per_epoch=samples_per_epoch, fresh_share=fresh_share, families=shares)

    def prepare_data(self) -> None:
        """Simulate the survey to validate on, unless it is recorded. Lightning calls this once on each machine.

        Raises:
            UserError: As `SyntheticDataModule.prepare_data` or `GathersDataModule.prepare_data`.
        """
        if self.hparams["root"] is None:
            super().prepare_data()
        else:
            GathersDataModule.prepare_data(self)

    def _drawn_families(self) -> set[str]:
        return set(self.mixing["shares"])

    def _source(self) -> Source:
        return FreshMaps(Recorded(self.train_dataset), self.seed, self.survey, **self.mixing)


def _shares(families: Sequence[str] | Mapping[str, float] | None) -> dict[str, float]:
    """Relative share of each family.

    Raises:
        UserError: If there is none, one is unknown, or a share is not positive.
    """
    if not isinstance(families, Mapping):
        families = dict.fromkeys(families or FAMILIES, 1.0)
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or not families:
        raise UserError(f"families must be some of {', '.join(FAMILIES)}, got {unknown[0] if unknown else 'none'}.")
    for family, share in families.items():
        if not isinstance(share, Real) or not 0 < share < float("inf"):
            raise UserError(f"the share of {family} must be a positive number, got {share!r}: leave the family out.")
    return {family: float(families[family]) for family in FAMILIES if family in families}
