"""The difference scheme of OpenFWI: what every back end shares.

The map is padded on its four sides with its edge values (`Survey.sponge` cells), the outer edge is periodic,
and each step is

    p_next = (2 - 5 alpha - kappa) p - (1 - kappa) p_previous
             + alpha (4/3 sum of the 4 neighbours at distance 1 - 1/12 sum of the 4 neighbours at distance 2)

with alpha = (v dt / dx)^2 and kappa = damping * dt: second order in time, fourth order in space. Then
p_next[source] += (v[source] dt)^2 wavelet[step], then the receivers are read. Source: the forward code
released with OpenFWI (Deng et al., 2022, arXiv:2111.02926).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fwi_lightning.survey import Survey

ABSORPTION = math.log(1e7)
"""Logarithm of the factor by which the sponge is meant to weaken a wave that goes out and comes back."""

ROUGHEST = 32 / 3
"""Largest eigenvalue of minus the difference Laplacian (times dx^2): the checkerboard, 5 + 16/3 + 1/3."""


def sponge_profile(survey: Survey) -> NDArray[np.float64]:
    """The damping a step takes off, for each m/s of the slowest velocity of the map.

    kappa[i] = profile[i] * min(v), i counting cells outwards from the map, grows with the square of i.

    Args:
        survey: The acquisition; its `sponge`, `spacing` and `time_step` count.

    Returns:
        (survey.sponge,) float64, in s/m; 0 beside the map.
    """
    thickness = (survey.sponge - 1) * survey.spacing
    distance = np.arange(survey.sponge) * survey.spacing / thickness
    strength = 3 * ABSORPTION / (2 * thickness) * survey.time_step
    return np.asarray(strength * distance**2, dtype=np.float64)


def largest_stable_velocity(survey: Survey, slowest: float) -> float:
    """The velocity above which the field may grow without bound at the survey's time step.

    With K for minus the difference Laplacian, the step reads

        (1 - kappa/2) (p_next - 2 p + p_previous) + kappa/2 (p_next - p_previous) + alpha K p = 0.

    Divide by alpha: the first factor becomes a mass M = (1 - kappa/2) / alpha, the second a damping that only
    takes energy away, and K is symmetric with eigenvalues from 0 to 32/3. The energy of such a leapfrog is
    positive, so that the field cannot grow, if M > K/4, which holds for any map if in every cell

        alpha < 4 (1 - kappa/2) / (32/3) = 3/8 (1 - kappa/2).

    The sponge therefore lowers the limit by a few percent. The outermost, largest kappa counts for all.

    Args:
        survey: The acquisition.
        slowest: Smallest velocity of the map in m/s; the damping is proportional to it.

    Returns:
        The limit in m/s; 0 if the damping alone is unstable (kappa of 2 and more).
    """
    kappa = sponge_profile(survey)[-1] * slowest
    return math.sqrt(4 / ROUGHEST * max(1 - kappa / 2, 0)) * survey.spacing / survey.time_step


def largest_stable_time_step(survey: Survey, slowest: float, fastest: float) -> float:
    """The time step at which `largest_stable_velocity` equals the fastest velocity of the map.

    With kappa = c dt the condition above is (v dt / dx)^2 + 3/16 c dt - 3/8 = 0; this is its positive root.

    Args:
        survey: The acquisition; its own time step does not count.
        slowest: Smallest velocity of the map in m/s.
        fastest: Largest velocity of the map in m/s.

    Returns:
        The time step in s.
    """
    a = (fastest / survey.spacing) ** 2
    b = 2 / ROUGHEST * sponge_profile(survey)[-1] / survey.time_step * slowest
    c = 4 / ROUGHEST
    return 2 * c / (b + math.sqrt(b * b + 4 * a * c))
