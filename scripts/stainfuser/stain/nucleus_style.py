"""How far the nuclei of a result are from the nuclei of a target that shows other tissue.

One observation per nucleus, not per px, and nuclei are compared with nuclei of their size: where a
target is full of small dark lymphocytes, a result with large pale nuclei is not told to darken
them.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.nucleus_segmentation import segment_nuclei
from stainfuser.stain.optical_density import rgb_to_od

# Sections of nuclei by area, um2: lymphocytes and pyknotic ones, small, and large vesicular ones.
AREA_BANDS_UM2 = (0.0, 25.0, 50.0, np.inf)
# A size with fewer nuclei in either image is not compared.
MIN_NUCLEI = 5


class NucleusColours(NamedTuple):
    """Of each nucleus: mean and standard deviation of its px, (N, 3) OD, and its area, um2."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    area_um2: NDArray[np.float64]


class NucleusReference:
    """The nuclei of a target, measured once.

    Parameters
    ----------
    target
        (H, W, 3) uint8 RGB.
    mpp
        Resolution of the target and of what is compared with it, um per px.
    """

    def __init__(self, target: NDArray[np.uint8], mpp: float = 0.5) -> None:
        self._mpp = mpp
        self._colours = nucleus_colours(target, segment_nuclei(target, mpp), mpp)

    def distance(self, result: NDArray[np.uint8], source_nuclei: NDArray[np.integer]) -> float:
        """Return the distance between the nuclei of a result and of the target, OD, >= 0.

        `source_nuclei` (H, W) are `segment_nuclei` of the *source* of `result`: a result cannot
        come nearer by painting other px as nuclei. The mean, over the sizes of nuclei that both
        show, of the root of the squared differences of: mean colour, spread of colour from nucleus
        to nucleus, and contrast within nuclei. NaN where no size is frequent in both.
        """
        own = nucleus_colours(result, source_nuclei, self._mpp)
        distances = [
            _band_distance(own, self._colours, low, high)
            for low, high in itertools.pairwise(AREA_BANDS_UM2)
        ]
        defined = [value for value in distances if value is not None]
        return float(np.mean(defined)) if defined else float("nan")


def nucleus_colours(
    rgb: NDArray[np.uint8], labels: NDArray[np.integer], mpp: float
) -> NucleusColours:
    """Measure the optical density of every nucleus of a (H, W) label image on (H, W, 3) RGB."""
    if rgb.shape[:2] != labels.shape:
        raise ValueError(f"labels of shape {rgb.shape[:2]} expected, got {labels.shape}")
    inside = labels > 0
    ids, index = np.unique(labels[inside], return_inverse=True)
    od = rgb_to_od(rgb[inside]).astype(np.float64)
    area = np.bincount(index, minlength=len(ids)).astype(np.float64)

    def means(values: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = [np.bincount(index, values[:, c], minlength=len(ids)) for c in range(3)]
        return np.stack(sums, axis=1) / area[:, None]

    mean = means(od)
    std = np.sqrt(np.maximum(means(od * od) - mean * mean, 0.0))
    return NucleusColours(mean, std, area * mpp**2)


def _band_distance(
    first: NucleusColours, second: NucleusColours, low: float, high: float
) -> float | None:
    """Return the distance between the nuclei of one size, or None where either has too few."""
    parts = []
    for colours in (first, second):
        chosen = (colours.area_um2 >= low) & (colours.area_um2 < high)
        if chosen.sum() < MIN_NUCLEI:
            return None
        mean, inner = colours.mean[chosen], colours.std[chosen]
        parts.append(np.stack([mean.mean(axis=0), mean.std(axis=0), inner.mean(axis=0)]))
    return float(np.sqrt(np.square(parts[0] - parts[1]).sum()))
