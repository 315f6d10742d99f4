"""What the epochs of a balanced training are made of."""

from __future__ import annotations

import lightning
from lightning.pytorch.callbacks import Callback


class Drawn(Callback):
    """Log `train/drawn/FAMILY`, and of supplemented families `train/supplement/FAMILY`, samples of the epoch.

    Nothing without `data.balance`. The first epoch is also printed.
    """

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count. Lightning calls this."""
        drawn = getattr(trainer.datamodule, "drawn", None)  # type: ignore[attr-defined]
        table = drawn(trainer.current_epoch) if drawn is not None else {}
        counts = {f"train/drawn/{family}": float(sum(row.values())) for family, row in table.items()}
        for family, row in table.items():
            more = sum(count for source, count in row.items() if source != "recorded")
            counts |= {f"train/supplement/{family}": float(more)} if more else {}
        pl_module.log_dict(counts, on_step=False, on_epoch=True)
        if table and trainer.is_global_zero and trainer.current_epoch == 0:
            said = (
                f"{family} " + " + ".join(f"{count} {source}" for source, count in row.items())
                for family, row in table.items()
                if row
            )
            print(f"an epoch has {', '.join(said)}", flush=True)
