"""Pictures of tissue with its nuclei outlined in the colour of their class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Brighter than any tissue, and far from the hues of H&E.
COLOURS = (
    (40, 255, 60),
    (255, 240, 0),
    (0, 190, 255),
    (255, 130, 0),
    (255, 255, 255),
    (0, 0, 0),
)
COLOUR_NAMES = ("green", "yellow", "blue", "orange", "white", "black")


def outlined(rgb: NDArray[np.uint8], labels: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Return (2H, 2W, 3): the image enlarged, a line one px wide within the rim of each nucleus.

    `labels` is (H, W, 2) instance and class, 1 for the first.
    """
    large, instances, classes = (
        part.repeat(2, axis=0).repeat(2, axis=1) for part in (rgb, labels[..., 0], labels[..., 1])
    )
    rim = np.zeros(instances.shape, bool)
    for axis in (0, 1):
        differs = np.diff(instances, axis=axis) != 0
        lower = [(0, 1) if side == axis else (0, 0) for side in (0, 1)]
        upper = [(1, 0) if side == axis else (0, 0) for side in (0, 1)]
        rim |= np.pad(differs, lower) | np.pad(differs, upper)
    rim &= instances > 0
    picture = large.copy()
    picture[rim] = np.array(COLOURS, np.uint8)[(classes[rim] - 1) % len(COLOURS)]
    return picture
