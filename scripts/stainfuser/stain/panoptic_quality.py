"""Panoptic quality of nuclei, segmented and classified, as the CoNIC challenge defines it (mPQ+).

Per class, true positives, false positives, false negatives and the overlaps of the true positives
are added up over all images before quality is computed, so that an image without a class neither
counts as perfect nor as failed (Graham et al. 2021, arXiv 2111.14485). A pair is a true positive
if its intersection over union exceeds 0.5, which at most one partner can.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.instance_matching import match_instances

COUNTS = ("tp", "fp", "fn", "iou_sum")


def panoptic_counts(
    true: NDArray[np.integer], predicted: NDArray[np.integer], classes: int
) -> NDArray[np.float64]:
    """Return (classes, 4) float64 of one image: the columns of `COUNTS`, class 1 first.

    `true` and `predicted` are (H, W, 2) whole numbers: instance, 0 outside of nuclei, and class,
    1 to `classes`, 0 outside. As in the challenge, a nucleus is found only in its class: one that
    is segmented well and classified wrongly is a false positive of one class and a false negative
    of another.
    """
    for labels in (true, predicted):
        if labels.ndim != 3 or labels.shape[2] != 2 or labels.dtype.kind not in "iu":
            found = f"{labels.shape} {labels.dtype}"
            raise ValueError(f"expected (H, W, 2) whole numbers, got {found}")
    if true.shape != predicted.shape:
        raise ValueError(f"labels of equal shape expected, got {true.shape}, {predicted.shape}")
    counts = np.zeros((classes, len(COUNTS)))
    for index in range(classes):
        one, other = (
            np.where(labels[..., 1] == index + 1, labels[..., 0], 0) for labels in (true, predicted)
        )
        matches = match_instances(one, other)
        pairs = len(matches.iou)
        counts[index] = (
            pairs,
            matches.second_count - pairs,
            matches.first_count - pairs,
            matches.iou.sum(),
        )
    return counts


def panoptic_quality(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the quality of each class, (..., C), of pooled counts (..., C, 4).

    Overlaps of the true positives over tp + fp / 2 + fn / 2, which is the product of segmentation
    and detection quality. NaN for a class that is neither there nor predicted (the challenge's
    script gives 0 for it; in its data there is none).
    """
    tp, fp, fn, overlaps = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    objects = tp + (fp + fn) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(objects > 0, overlaps / objects, np.nan)


def mean_panoptic_quality(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mPQ+, (...), of pooled counts (..., C, 4): the mean over the classes that exist.

    NaN where no class does.
    """
    quality = panoptic_quality(counts)
    exists = np.isfinite(quality)
    with np.errstate(invalid="ignore"):
        return np.where(exists, quality, 0.0).sum(axis=-1) / exists.sum(axis=-1)


def detection_f1(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the F1 of nuclei found, in their class, all classes together, (...)."""
    tp, fp, fn, _ = np.moveaxis(np.asarray(counts, np.float64).sum(axis=-2), -1, 0)
    with np.errstate(invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn)


def area_over_targets(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area under the curve of (..., T) values of T targets, sorted, best first.

    The curve runs over the share of targets from 0 to 1, so the area is in the unit of `values`;
    it is their mean with half the weight on the best and the worst. A NaN makes it NaN; with one
    target it is that target's value.
    """
    ordered = np.sort(values, axis=-1)[..., ::-1]
    if ordered.shape[-1] == 1:
        return ordered[..., 0]
    return np.trapezoid(ordered, dx=1.0 / (ordered.shape[-1] - 1), axis=-1)
