"""Labels of nuclei as a network learns them, and what it answers as labels again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.nucleus_segmentation import divide_nuclei

# Smoothing of the predicted depth before its peaks are taken, um.
SMOOTHING_UM = 0.5


def learning_targets(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return (2, H, W) float32 of (H, W, 2) labels: depth in [0, 1], and class.

    The depth of a px is its distance to the rim of its own nucleus, relative to the deepest one.
    """
    instances = np.pad(labels[..., 0], 1)
    inside = instances > 0
    for axis in (0, 1):
        for step in (-1, 1):
            inside &= np.roll(instances, step, axis) == instances
    distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1] + 0.5
    numbers = np.arange(int(instances.max()) + 1)
    deepest = np.maximum(ndimage.maximum(distance, labels[..., 0], numbers), 1.0)
    depth = np.where(labels[..., 0] > 0, distance / deepest[labels[..., 0]], 0.0)
    return np.stack([np.minimum(depth, 1.0), labels[..., 1]]).astype(np.float32)


def labels_of_prediction(
    nucleus: NDArray[np.floating],
    depth: NDArray[np.floating],
    classes: NDArray[np.floating],
    mpp: float,
) -> NDArray[np.int32]:
    """Return (H, W, 2) int32 labels: instance, and the class with the largest sum over its px.

    `nucleus`, `depth` (H, W) in [0, 1]; `classes` (C, H, W) chances.
    """
    smooth = ndimage.gaussian_filter(depth, SMOOTHING_UM / mpp)
    instances = divide_nuclei(nucleus > 0.5, smooth, mpp)
    numbers = np.arange(int(instances.max()) + 1)
    votes = np.stack([ndimage.sum_labels(chance, instances, numbers) for chance in classes])
    kind = votes.argmax(axis=0).astype(np.int32) + 1
    kind[0] = 0
    return np.stack([instances, kind[instances]], axis=2)


def at_mpp(
    rgb: NDArray[np.uint8], labels: NDArray[np.int32], mpp: float, wanted_mpp: float
) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Bring an image and its labels to another resolution: pixels by area, labels by nearest."""
    from skimage.transform import resize

    if abs(mpp / wanted_mpp - 1) < 0.01:
        return rgb, labels
    shape = tuple(max(1, round(side * mpp / wanted_mpp)) for side in rgb.shape[:2])
    small = resize(rgb, (*shape, 3), order=1, anti_aliasing=mpp < wanted_mpp, preserve_range=True)
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * side / n).astype(int), side - 1)
        for n, side in zip(shape, rgb.shape[:2], strict=True)
    )
    return np.rint(small).astype(np.uint8), labels[rows[:, None], columns]
