"""Take the colour from the model and the structure from the source.

A guided filter (He, Sun and Tang, ECCV 2010) in optical density, channel by channel: within every
small window the change the model makes is replaced by the linear function of the source's own
density that fits it best, and neighbouring windows are averaged. What has a counterpart in the
source (a nucleus darker than its stroma) keeps its own change up to its very edge, without the
fringe a plain low pass would leave; what has none (texture the model invented) averages out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Variance of optical density below which a window counts as flat: the noise of scanner and JPEG.
FLAT_VARIANCE = 0.05**2
# Limits of the slope: new density = (1 + slope) * density + offset must neither invert nor
# explode what is outside the range of its window.
LEAST_SLOPE, LARGEST_SLOPE = -0.9, 2.0


def guard_reach_px(radius_px: int) -> int:
    """Return how far a pixel's result looks: two windows."""
    return 2 * radius_px


def local_change(
    source_od: NDArray[np.float32], change: NDArray[np.float32], radius_px: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return slope and offset, each (H, W, 3) float32, such that change ≈ slope * od + offset.

    Parameters
    ----------
    source_od, change
        (H, W, 3) float32: optical density of the source, and what the model adds to it.
    radius_px
        Windows are squares of side 2 * radius_px + 1.
    """
    slope, offset = np.empty_like(change), np.empty_like(change)
    for channel in range(3):
        x, y = source_od[..., channel], change[..., channel]
        mean_x, mean_y = _mean(x, radius_px), _mean(y, radius_px)
        variance = np.maximum(_mean(x * x, radius_px) - mean_x * mean_x, 0.0)
        covariance = _mean(x * y, radius_px) - mean_x * mean_y
        steep = np.clip(covariance / (variance + FLAT_VARIANCE), LEAST_SLOPE, LARGEST_SLOPE)
        slope[..., channel] = _mean(steep, radius_px)
        offset[..., channel] = _mean(mean_y - steep * mean_x, radius_px)
    return slope, offset


def _mean(field: NDArray[np.float32], radius_px: int) -> NDArray[np.float32]:
    return ndimage.uniform_filter(field, 2 * radius_px + 1, mode="nearest")
