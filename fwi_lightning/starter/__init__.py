"""The model that comes with the package, and the seed that nothing is ever trained on."""

from __future__ import annotations

from pathlib import Path

from fwi_lightning.errors import UserError

CHECKPOINT = Path(__file__).with_name("starter.ckpt")
"""The starter model, where this copy has one; starter.md beside it says what it was made of."""

TEST_SEED = 70_001
"""Seed of the maps of benchmarks/scoreboard.py (the first 50 of each family) and of the demonstration (later ones).

Train on no map of this seed: whatever is on the scoreboard would then be compared by what it has seen.
"""


def starter() -> Path:
    """The starter model's checkpoint.

    Raises:
        UserError: If this copy of the package has none.
    """
    if not CHECKPOINT.is_file():
        raise UserError(f"this copy has no starter model ({CHECKPOINT}): give ckpt= a checkpoint of a training run.")
    return CHECKPOINT
