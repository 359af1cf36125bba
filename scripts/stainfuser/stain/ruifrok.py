"""Normalisation with fixed stain vectors (Ruifrok and Johnston 2001): amounts are matched alone.

Vectors and amounts are those of scikit-image's `rgb2hed`: haematoxylin, eosin and, as the third,
what is left over; negative amounts count as none. The 99th percentiles of the first two amounts are
made those of the target, as for the methods that estimate their vectors; the third stays as it is.
What differs in hue between two laboratories cannot be corrected so: the method is the floor of the
separations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRONG_PERCENTILE = 99.0
STAINS = 2
# A stain whose strong pixels absorb less than this, OD (natural log), is absent.
MIN_STRONG_OD = 0.05


class RuifrokNormalizer:
    """Fitted to a target; `normalize` gives sources its amounts of stain."""

    def __init__(self, target: NDArray[np.uint8]) -> None:
        """Fit to (H, W, 3) uint8 RGB."""
        self.strong = _strong(separate(target))

    def normalize(self, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB; raises `ValueError` where one of the stains is absent."""
        amounts = separate(source)
        strong = _strong(amounts)
        if min(strong.min(), self.strong.min()) < MIN_STRONG_OD:
            raise ValueError("one of the two stains is absent")
        amounts[:, :STAINS] *= self.strong / strong
        return combine(amounts).reshape(source.shape)


def separate(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return (N, 3) amounts of haematoxylin, eosin and the rest, in optical density (natural log).

    Up to the unit (scikit-image divides by the density of 1e-6) those of `skimage.color.rgb2hed`.
    """
    from skimage.color import hed_from_rgb

    od = -np.log(np.maximum(rgb.reshape(-1, 3), 1) / 255.0)
    return np.maximum(od @ hed_from_rgb, 0.0)


def combine(amounts: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (N, 3) uint8 RGB of (N, 3) amounts, as `skimage.color.hed2rgb` does, rounded."""
    from skimage.color import rgb_from_hed

    return np.rint(255.0 * np.clip(np.exp(-(amounts @ rgb_from_hed)), 0, 1)).astype(np.uint8)


def _strong(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.percentile(amounts[:, :STAINS], STRONG_PERCENTILE, axis=0)
