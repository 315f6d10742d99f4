"""Processes that read ahead: how they start. They import this module, so it imports next to nothing."""

from __future__ import annotations

import multiprocessing
import os
import sys
from typing import Any


def worker_settings(count: int) -> dict[str, Any]:
    """Settings of a DataLoader with so many worker processes.

    A forked copy of a process in which a numba parallel region has run hangs. So the workers are forked from a server
    that was started clean and has imported what reading needs, once for all of them; where a system cannot fork,
    Python starts anew for each.

    Args:
        count: Number of processes; 0 reads in the calling one.

    Returns:
        Keyword arguments for `torch.utils.data.DataLoader`.
    """
    if count == 0:
        return {"num_workers": 0}
    server = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if server else "spawn")
    if server:
        context.set_forkserver_preload(["__main__", "fwi_lightning.data.training"])
    return {
        "num_workers": count,
        "multiprocessing_context": context,
        "worker_init_fn": start_worker,
        "persistent_workers": True,  # a start takes seconds, an epoch may take less
    }


def start_worker(number: int) -> None:
    """Give a worker one thread: many workers with a thread a core each would fight over the cores.

    Args:
        number: Number of the worker, from 0.
    """
    os.environ["NUMBA_NUM_THREADS"] = "1"
    if "numba" in sys.modules:
        import numba

        numba.set_num_threads(1)
