"""Rough labels of glass, nuclei and other tissue, good enough to learn from and no better.

They are taken from training images as they were stained. A network that sees the same pixels
recoloured learns what does not depend on the colour; nothing here is used on a user's slide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import rgb_to_od

BACKGROUND, NUCLEI, OTHER = 0, 1, 2
# Glass: within this optical density (mean of the channels) of the image's brightest pixels.
GLASS_OD = 0.08
# A brightest percentile darker than this is tissue, not glass.
MAX_GLASS_OD = 0.20
# Red absorption of a nucleus, at the least: eosin hardly absorbs red.
MIN_NUCLEAR_RED_OD = 0.25
# Otsu separates nuclei only where both classes differ by this much red absorption.
MIN_RED_CONTRAST_OD = 0.18


def weak_labels(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Label (H, W, 3) uint8 RGB of an H&E image: (H, W) uint8 of 0 glass, 1 nuclei, 2 other."""
    od = ndimage.gaussian_filter(rgb_to_od(rgb), (0.7, 0.7, 0))
    labels = np.full(rgb.shape[:2], OTHER, np.uint8)
    glass = np.percentile(od.mean(-1), 0.5)
    is_glass = od.mean(-1) < min(glass, MAX_GLASS_OD - GLASS_OD) + GLASS_OD
    # Glass has no colour; the palest eosin does.
    is_glass &= od.max(-1) - od.min(-1) < 0.14
    labels[is_glass] = BACKGROUND
    red = od[..., 0]
    tissue = red[~is_glass]
    if tissue.size:
        labels[~is_glass & (red > _nuclear_threshold(tissue))] = NUCLEI
    return labels


def _nuclear_threshold(red: NDArray[np.floating]) -> float:
    """Return the red absorption that divides nuclei from the rest; infinite where nothing does."""
    counts, edges = np.histogram(red, bins=128, range=(0.0, 2.5))
    levels = (edges[:-1] + edges[1:]) / 2
    below, total = np.cumsum(counts), counts.sum()
    sums = np.cumsum(counts * levels)
    above = np.maximum(total - below, 1)
    gap = (sums[-1] - sums) / above - sums / np.maximum(below, 1)
    best = int(np.argmax(below * (total - below) * gap**2))
    if gap[best] < MIN_RED_CONTRAST_OD:
        return float("inf")
    return max(float(edges[best + 1]), MIN_NUCLEAR_RED_OD)
