"""Threads of numba beside those of torch."""

from __future__ import annotations

import numba
import torch


def kernel_threads() -> int:
    """Threads that a parallel kernel has: what numba says, without a word to torch.

    Numba's OpenMP layer, which starts here, sets the number of threads of the whole process, to all logical cores.
    Torch rounds otherwise with another number of threads: a run that has simulated would not repeat one that has not.
    """
    before = torch.get_num_threads()
    threads = int(numba.get_num_threads())
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)
    return threads
