"""The network's own error, seen on its simulated answer, taken off the answer; no gradient needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fwi_lightning.errors import UserError
from fwi_lightning.physics.misfit import relative_rms


@torch.no_grad()
def correct(
    gathers: Tensor,
    predict: Callable[[Tensor], Tensor],
    simulate: Callable[[Tensor], Tensor],
    start: Tensor | None = None,
    answer: Tensor | None = None,
    steps: int = 3,
    factors: Sequence[float] = (1.0, 0.7, 0.4, 0.2),
    bounds: tuple[float, float] = (1500.0, 4500.0),
) -> tuple[Tensor, Tensor]:
    """The fixed point x <- x - a (M(F(x)) - M(d)), as far as the misfit falls.

    M is the network, F the simulator, d the record. If the network errs on the simulated answer as it errs on the
    record, the difference of the two is its error. The factor a is searched for each sample; one whose misfit falls for
    none of them keeps its map, and so none gets worse in data space.

    Args:
        gathers: (batch, shots, time, receivers) as recorded.
        predict: The network, gathers to (batch, 1, depth, width) in m/s.
        simulate: The simulator, (batch, depth, width) in m/s to gathers.
        start: (batch, 1, depth, width) in m/s, where x begins. Default: the network's answer.
        answer: The network's answer, if it is known: it is not asked again.
        steps: Repetitions. Default 3.
        factors: What is tried for a, in this order. Default (1, 0.7, 0.4, 0.2).
        bounds: Lowest and highest velocity, m/s. Default (1500, 4500).

    Returns:
        The maps, (batch, 1, depth, width) in m/s, and their misfits, (batch,).

    Raises:
        UserError: If `steps` is below 1 or there is no factor.
    """
    if steps < 1 or not factors:
        raise UserError(
            f"inference.fixed_point needs at least 1 step and 1 factor, got steps={steps}, {list(factors)}."
        )
    answer = predict(gathers) if answer is None else answer
    best = (answer if start is None else start).clamp(*bounds)
    record = simulate(best[:, 0])
    misfit = relative_rms(gathers, record)
    searching = torch.ones(len(gathers), dtype=torch.bool)
    for _ in range(steps):
        rows = searching.nonzero()[:, 0]
        if not len(rows):
            break
        correction = predict(record[rows]) - answer[rows]
        searching[:] = False
        for factor in factors:
            tried = (best[rows] - factor * correction).clamp(*bounds)
            simulated = simulate(tried[:, 0])
            found = relative_rms(gathers[rows], simulated)
            better = found < misfit[rows]
            chosen = rows[better]
            best[chosen], record[chosen], misfit[chosen] = tried[better], simulated[better], found[better]
            searching[chosen] = True
            rows, correction = rows[~better], correction[~better]
            if not len(rows):
                break
    return best, misfit
