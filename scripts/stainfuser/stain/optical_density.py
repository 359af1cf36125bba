"""Optical density (OD): the space in which stains add up (Beer-Lambert)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def rgb_to_od(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return -ln((rgb + 1) / 256): (..., 3) uint8 RGB → (..., 3) float32 in [0, 5.55]."""
    table = -np.log((np.arange(256, dtype=np.float32) + 1.0) / 256.0)
    return table[rgb]


def od_to_rgb(od: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Invert `rgb_to_od`, rounding and clamping: (..., 3) float → (..., 3) uint8 RGB."""
    return np.clip(np.rint(256.0 * np.exp(-od) - 1.0), 0, 255).astype(np.uint8)


def quadratic_features(od: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return (..., 10): 1, r, g, b, rr, gg, bb, rg, rb, gb of (..., 3) optical densities."""
    r, g, b = od[..., 0], od[..., 1], od[..., 2]
    return np.stack([np.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b], axis=-1)
