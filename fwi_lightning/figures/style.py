"""How velocity looks in every figure of the project."""

VELOCITY_CMAP = "turbo"
"""Colour map of velocity: layers 100 m/s apart still differ to the eye, which viridis does not give."""

VELOCITY_RANGE = (1500.0, 4500.0)
"""Velocities at the two ends of the colour scale, m/s: the bounds of OpenFWI, the same in every figure."""
