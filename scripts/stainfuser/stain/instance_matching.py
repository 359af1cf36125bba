"""Which object of one label image is which of another: pairs by intersection over union."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Above this overlap an object has at most one partner (Kirillov et al. 2019), so that pairs need
# no assignment problem to be solved.
MIN_IOU = 0.5


class Matches(NamedTuple):
    """Pairs of objects, and how many objects there are.

    Attributes
    ----------
    first, second
        (M,) int64 labels of each pair.
    iou
        (M,) float64 intersection over union of each pair, in (0.5, 1].
    first_count, second_count
        Objects in either image, matched or not.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    iou: NDArray[np.float64]
    first_count: int
    second_count: int

    @property
    def f1(self) -> float:
        """Twice the pairs over all objects, in [0, 1]; NaN where there is no object at all."""
        objects = self.first_count + self.second_count
        return 2 * len(self.iou) / objects if objects else float("nan")


def match_instances(first: NDArray[np.integer], second: NDArray[np.integer]) -> Matches:
    """Pair the objects of two (H, W) label images whose intersection over union exceeds 0.5.

    0 is background; other labels need be neither contiguous nor connected. Raises `ValueError`
    for images of unequal shape or labels that are not whole numbers >= 0.
    """
    first, second = _checked(first), _checked(second)
    if first.shape != second.shape:
        raise ValueError(f"label images of equal shape expected, got {first.shape}, {second.shape}")
    (first_ids, first_index, first_areas), (second_ids, second_index, second_areas) = (
        np.unique(labels[labels > 0], return_inverse=True, return_counts=True)
        for labels in (first, second)
    )
    both = (first > 0) & (second > 0)
    rows, columns = first_index[both[first > 0]], second_index[both[second > 0]]
    codes, overlaps = np.unique(rows * max(len(second_ids), 1) + columns, return_counts=True)
    rows, columns = codes // max(len(second_ids), 1), codes % max(len(second_ids), 1)
    iou = overlaps / (first_areas[rows] + second_areas[columns] - overlaps)
    kept = iou > MIN_IOU
    return Matches(
        first_ids[rows[kept]],
        second_ids[columns[kept]],
        iou[kept],
        len(first_ids),
        len(second_ids),
    )


def _checked(labels: NDArray[np.integer]) -> NDArray[np.int64]:
    if labels.ndim != 2 or labels.dtype.kind not in "iub" or (labels.size and labels.min() < 0):
        found = f"{labels.shape} {labels.dtype}"
        raise ValueError(f"expected a (H, W) image of labels >= 0, got {found}")
    return labels.astype(np.int64)
