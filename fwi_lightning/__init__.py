"""Full waveform inversion on PyTorch Lightning: shot gathers in, velocity map out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fwi_lightning.inversion.ensemble import load_model

__all__ = ["load_model"]


def __getattr__(name: str) -> Any:
    """Import `load_model` when it is first asked for: the survey and the simulator need no Lightning."""
    if name == "load_model":
        from fwi_lightning.inversion.ensemble import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
