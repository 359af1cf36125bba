"""Where tiles lie, and how much of each is tissue."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def grid_corners(size_px: tuple[int, int], side_px: float) -> NDArray[np.int64]:
    """Return the top left corners of squares side by side, (N, 2) x then y, in reading order.

    Along an axis shorter than a square, but not than half of one, there is one square that
    reaches over the edge; of anything smaller there is none.
    """
    x_px, y_px = (_starts(length_px, side_px) for length_px in size_px)
    grid_y, grid_x = np.meshgrid(y_px, x_px, indexing="ij")
    return np.stack([grid_x.ravel(), grid_y.ravel()], axis=1)


def middle_of(image: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Return a view of the middle of an (H, W, 3) image, at most `side_px` on a side."""
    top, left = (max((side - side_px) // 2, 0) for side in image.shape[:2])
    return image[top : top + side_px, left : left + side_px]


def tissue_of_squares(
    mask: NDArray[np.bool_],
    size_px: tuple[int, int],
    corners: NDArray[np.int64],
    side_px: float,
) -> NDArray[np.float64]:
    """Return the tissue fraction of each square, (N,) in [0, 1].

    `mask` covers the whole slide of `size_px` (width, height); squares are cut at the slide's
    edge and rounded to px of the mask, of which they hold at least one.
    """
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1)
    left, right = _in_mask_px(corners[:, 0], side_px, mask.shape[1], size_px[0])
    top, bottom = _in_mask_px(corners[:, 1], side_px, mask.shape[0], size_px[1])
    inside = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return inside / ((bottom - top) * (right - left))


def _starts(length_px: int, side_px: float) -> NDArray[np.int64]:
    if length_px < side_px:
        return np.zeros(1 if length_px >= side_px / 2 else 0, np.int64)
    # A tile may not gain a pixel by the rounding of its corner.
    count = int((length_px + 1e-6) // side_px)
    return np.floor(np.arange(count) * side_px).astype(np.int64)


def _in_mask_px(
    start_px: NDArray[np.int64], side_px: float, mask_px: int, length_px: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    scale = mask_px / length_px
    low = np.clip(np.rint(start_px * scale), 0, mask_px - 1).astype(np.int64)
    high = np.clip(np.rint((start_px + side_px) * scale), 0, mask_px).astype(np.int64)
    return low, np.maximum(high, low + 1)
