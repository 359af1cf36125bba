"""Nuclei by classical means: the same method on images of any stain, to compare what it finds.

It is no match for a trained network and need not be: a source and a faithful result get the same
answer, because every threshold is the image's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.style_distance import soft_classes

# Nuclei absorb red light by this much more than the rest of the tissue, or there are none.
MIN_NUCLEAR_CONTRAST_OD = 0.1
# Smaller than any nucleus of H&E tissue that is cut through its middle.
MIN_AREA_UM2 = 8.0
# Smoothing of the nuclear map, and of the distances that part nuclei that touch.
SMOOTHING_UM, DISTANCE_SMOOTHING_UM = 0.4, 0.6
# Nuclei lie at least so far apart, centre to centre.
MIN_SEPARATION_UM = 2.5


def nuclear_map(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return how nuclear each px of a (H, W, 3) uint8 RGB image is, (H, W) float32 in [0, 1].

    All zero where nothing absorbs red clearly more than the rest.
    """
    pixels = rgb.reshape(-1, 3)
    classes = soft_classes(pixels)
    red = rgb_to_od(pixels)[:, 0]
    mass = classes.sum(axis=0) + 1e-6
    nuclei, other = (float(classes[:, index] @ red / mass[index]) for index in (1, 2))
    if mass[2] > 1.0 and nuclei - other < MIN_NUCLEAR_CONTRAST_OD:
        return np.zeros(rgb.shape[:2], np.float32)
    return classes[:, 1].reshape(rgb.shape[:2])


def segment_nuclei(rgb: NDArray[np.uint8], mpp: float = 0.5) -> NDArray[np.int32]:
    """Label the nuclei of a (H, W, 3) uint8 RGB image: (H, W) int32, 0 elsewhere.

    The haematoxylin map of `soft_classes`, thresholded, is divided by a watershed on the distance
    to its rim. `mpp` is the resolution, um per px.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8 or not rgb.size:
        raise ValueError(f"expected a (H, W, 3) uint8 RGB array, got {rgb.shape} {rgb.dtype}")
    nuclear = ndimage.gaussian_filter(nuclear_map(rgb), SMOOTHING_UM / mpp) > 0.5
    nuclear = ndimage.binary_fill_holes(nuclear)
    depth = ndimage.distance_transform_edt(nuclear)
    return divide_nuclei(nuclear, ndimage.gaussian_filter(depth, DISTANCE_SMOOTHING_UM / mpp), mpp)


def divide_nuclei(
    nuclear: NDArray[np.bool_], depth: NDArray[np.floating], mpp: float
) -> NDArray[np.int32]:
    """Label the nuclei of a (H, W) mask: a watershed from the peaks of `depth`, (H, W) int32.

    `depth` is (H, W), high in the middle of nuclei. Objects too small for a nucleus are left out.
    """
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    components, _ = ndimage.label(nuclear)
    peaks = peak_local_max(
        depth,
        min_distance=max(1, round(MIN_SEPARATION_UM / mpp)),
        labels=components,
        exclude_border=False,
    )
    seeds = np.zeros(nuclear.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return _without_specks(watershed(-depth, seeds, mask=nuclear), MIN_AREA_UM2 / mpp**2)


def _without_specks(labels: NDArray[np.int32], least_px: float) -> NDArray[np.int32]:
    """Remove objects below an area and number the rest from 1 on."""
    kept = np.bincount(labels.ravel()) >= least_px
    kept[0] = False
    numbers = np.where(kept, np.cumsum(kept), 0).astype(np.int32)
    return numbers[labels]
