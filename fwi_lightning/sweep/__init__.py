"""Hyperparameter sweeps: what is searched, where trials are kept, which point is tried next."""
