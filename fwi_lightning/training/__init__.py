"""LightningModules, losses, metrics and callbacks."""
