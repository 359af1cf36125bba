"""Does the result show the nuclei of the source: all of them, none added, of their size and shape?

Both images are segmented by the same classical method (`nucleus_segmentation`). SSIM hardly moves
when a few nuclei are painted into a tile or wiped out of it; this does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.instance_matching import match_instances
from stainfuser.stain.nucleus_segmentation import segment_nuclei

# Variance of a px-wide box: what a single px adds to the second moments of an object.
PX_VARIANCE = 1.0 / 12.0


class NucleusShapes(NamedTuple):
    """Of every object of a label image, in rising order of labels, (N,) each.

    `area_px`; `axis_ratio`: short over long axis of the ellipse of equal moments, in (0, 1].
    """

    labels: NDArray[np.int64]
    area_px: NDArray[np.float64]
    axis_ratio: NDArray[np.float64]


def nucleus_agreement(
    source: NDArray[np.uint8],
    result: NDArray[np.uint8],
    mpp: float = 0.5,
    source_nuclei: NDArray[np.integer] | None = None,
) -> dict[str, float]:
    """Compare the nuclei of two (H, W, 3) uint8 RGB images of the same tissue.

    Parameters
    ----------
    source, result
        The tile before and after.
    mpp
        Resolution, um per px.
    source_nuclei
        (H, W) `segment_nuclei` of the source, if it is known already: it is the same for every
        result.

    Returns
    -------
    dict
        `nucleus_f1`: F1 of nuclei matched at an intersection over union above 0.5;
        `nucleus_matched_fraction`: of the source's nuclei; `nucleus_invented_fraction`: of the
        result's nuclei, those without a partner; `nucleus_area_change`: mean relative change of
        the area of matched nuclei; `nucleus_shape_change`: mean change of their ratio of axes.
        NaN where there is nothing to divide by.
    """
    if source.shape != result.shape:
        raise ValueError(f"images of equal shape expected, got {source.shape} and {result.shape}")
    before = segment_nuclei(source, mpp) if source_nuclei is None else source_nuclei
    return label_agreement(before, segment_nuclei(result, mpp))


def label_agreement(before: NDArray[np.integer], after: NDArray[np.integer]) -> dict[str, float]:
    """Return the measures of `nucleus_agreement` for two (H, W) label images."""
    matches = match_instances(before, after)
    pairs = len(matches.iou)
    shapes, other = nucleus_shapes(before), nucleus_shapes(after)
    rows = np.searchsorted(shapes.labels, matches.first)
    columns = np.searchsorted(other.labels, matches.second)
    area, ratio = shapes.area_px[rows], shapes.axis_ratio[rows]
    return {
        "nucleus_f1": matches.f1,
        "nucleus_matched_fraction": _part(pairs, matches.first_count),
        "nucleus_invented_fraction": _part(matches.second_count - pairs, matches.second_count),
        "nucleus_area_change": _mean(np.abs(other.area_px[columns] / area - 1.0)),
        "nucleus_shape_change": _mean(np.abs(other.axis_ratio[columns] - ratio)),
    }


def nucleus_shapes(labels: NDArray[np.integer]) -> NucleusShapes:
    """Measure every object of a (H, W) label image by its moments."""
    rows, columns = np.nonzero(labels)
    ids, index = np.unique(labels[rows, columns].astype(np.int64), return_inverse=True)
    area = np.bincount(index, minlength=len(ids)).astype(np.float64)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(index, values, minlength=len(ids)) / np.maximum(area, 1.0)

    y, x = rows - mean(rows)[index], columns - mean(columns)[index]
    yy, xx, xy = mean(y * y) + PX_VARIANCE, mean(x * x) + PX_VARIANCE, mean(x * y)
    spread = np.sqrt(((yy - xx) / 2) ** 2 + xy**2)
    middle = (yy + xx) / 2
    return NucleusShapes(ids, area, np.sqrt((middle - spread) / (middle + spread)))


def _part(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else float("nan")
