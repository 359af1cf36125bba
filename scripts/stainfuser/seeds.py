"""Random numbers that depend on what they are for, not on the order in which they are drawn."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *purpose: object) -> int:
    """Return a 63-bit seed for one purpose, e.g. ``derive_seed(1, "tiles", slide)``.

    The same arguments give the same seed on every machine and Python version.
    """
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: object) -> np.random.Generator:
    """Return a numpy generator for one purpose (see `derive_seed`)."""
    return np.random.default_rng(derive_seed(seed, *purpose))
