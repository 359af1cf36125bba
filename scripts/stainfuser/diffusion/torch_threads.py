"""The number of threads torch computes with, and its kernels, for the time of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads; with one, sums are made in one order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Fix the number of threads and choose deterministic kernels for the time of the block.

    Sums are split among threads, so the last bits of a result depend on their number.
    """
    kept_mode = torch.are_deterministic_algorithms_enabled()
    kept_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    # On CUDA a few kernels have no deterministic form: warn there, insist on a CPU.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        with torch_threads(threads):
            yield
    finally:
        torch.use_deterministic_algorithms(kept_mode, warn_only=kept_warning)
