"""How long the search for static weights takes: 500 samples, 6 members, 200 trials of each sampler.

    uv run python benchmarks/ensemble.py

What an ensemble gains is measured by `python -m fwi_lightning ensemble`; see docs/ensemble.md.
"""

from __future__ import annotations

import time

import numpy as np

from fwi_lightning.inversion.ensemble.weights import SAMPLERS, Blends, search

SAMPLES, MEMBERS, TRIALS = 500, 6, 200


def make() -> tuple[np.ndarray, np.ndarray]:
    """Members whose errors have a common part and one of their own, and the truth."""
    draw = np.random.default_rng(0)
    truth = draw.normal(3000, 500, (SAMPLES, 70, 70)).astype(np.float32)
    common = draw.normal(0, 100, truth.shape).astype(np.float32)
    own = [draw.normal(0, 200 + 30 * member, truth.shape).astype(np.float32) for member in range(MEMBERS)]
    return np.stack([truth + common + error for error in own]), truth


def main() -> None:
    """Time each sampler, the choice of cells with it."""
    velocity, truth = make()
    for sampler in SAMPLERS:
        begun, busy = time.monotonic(), time.process_time()
        blends = Blends(velocity, truth)
        weights = search(blends, TRIALS, [sampler])
        seconds, processor = time.monotonic() - begun, time.process_time() - busy
        print(
            f"{sampler}: {seconds:.1f} s, {processor:.1f} s of processor, MAE {blends.mae(weights):.2f} m/s, "
            f"equal weights {blends.mae(np.full(MEMBERS, 1 / MEMBERS)):.2f}, weights {weights.round(3).tolist()}"
        )


if __name__ == "__main__":
    main()
