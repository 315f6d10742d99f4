"""Hydra's sweeper for `train.py sweep=optuna`. Hydra finds plugins in packages under this name only."""
