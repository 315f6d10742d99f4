"""A line of 190 columns answered by windows of a network of 70: error, and whether the seams show.

    uv run python benchmarks/lines.py ckpt=RUN/checkpoints/last.ckpt [velocity=FILE] [step=17]

The ground is the Marmousi map of the tests, simulated with the shots that windows every `step` columns need. Prints for
each way of blending the MAE over the line, in the two columns at each seam and elsewhere, and `seam` of
docs/inference.md, also that of the true map.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fwi_lightning import load_model
from fwi_lightning.inversion.windows import LineNetwork, find_windows, seam
from fwi_lightning.physics import simulate

RESULT = Path(__file__).with_suffix(".json")
MARMOUSI = Path(__file__).parents[1] / "tests" / "physics" / "marmousi" / "velocity.npy"


def main() -> None:
    """Measure, print, write."""
    words = dict(word.split("=", 1) for word in sys.argv[1:])
    step = int(words.get("step", 17))
    model = load_model(words["ckpt"])
    truth = torch.from_numpy(np.load(words.get("velocity", MARMOUSI)).astype(np.float32)).reshape(1, 1, 70, -1)
    width, window = truth.shape[-1], model.survey
    places = sorted({*range(0, width - window.grid[1] + 1, step), width - window.grid[1]})
    shots = sorted({place + column for place in places for column in window.shot_columns})
    line = replace(window, grid=(70, width), shot_columns=tuple(shots), receiver_columns=tuple(range(width)))
    gathers = simulate(truth[:, 0], line)
    windows = find_windows(line, window, step)
    at_seam = torch.zeros(width, dtype=torch.bool)
    at_seam[[column for edge in windows.borders() for column in (edge - 1, edge)]] = True
    answer = model.predict_answer(windows.cut(gathers))
    rows = {}
    for envelope in ("uniform", "gaussian", "hann"):
        for lit, agreed in ((False, False), (True, False), (True, True)):
            velocity = LineNetwork(lambda _: answer, windows, envelope, lit, agreed)(gathers).velocity
            error = (velocity - truth).abs().mean(dim=(0, 1, 2))
            name = f"{envelope}{', illumination' * lit}{', agreement' * agreed}"
            rows[name] = {
                "mae": round(float(error.mean()), 1),
                "mae_at_seams": round(float(error[at_seam].mean()), 1),
                "mae_elsewhere": round(float(error[~at_seam].mean()), 1),
                "seam": round(seam(velocity, windows)[0], 3),
            }
            print(f"{name:28}", rows[name], flush=True)
    rows["truth"] = {"seam": round(seam(truth, windows)[0], 3)}
    print("truth", rows["truth"])
    setting = f"{len(windows.places)} windows, {line.shots} shots, {width} columns; {type(model).__name__}"
    result = {"command": "uv run python benchmarks/lines.py ckpt=...", "setting": setting, "rows": rows}
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
