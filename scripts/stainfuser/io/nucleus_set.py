"""A data set of images with outlined nuclei, whatever format it came in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Polygon = NDArray[np.floating]


@dataclass(frozen=True)
class NucleusImage:
    """One image and its nuclei.

    Attributes
    ----------
    name
        Unique in its set.
    group
        Slide or patient it was cut from: images of one group never lie on both sides of a split.
    rgb
        (H, W, 3) uint8 RGB.
    labels
        (H, W, 2) int32: instance, 0 outside of nuclei, and class, 1 to C, 0 outside.
    """

    name: str
    group: str
    rgb: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class NucleusSet:
    """Images of one resolution and one list of classes.

    Attributes
    ----------
    name
        What tables call it.
    classes
        Names of the classes 1 to C.
    mpp
        Resolution, um per px.
    members
        (name, group) of every image, in order.
    read
        Reads the image of an index of `members`.
    """

    name: str
    classes: tuple[str, ...]
    mpp: float
    members: tuple[tuple[str, str], ...]
    read: Callable[[int], NucleusImage]

    def __len__(self) -> int:
        return len(self.members)


def labels_of_polygons(
    outlines: Sequence[Polygon], height_px: int, width_px: int
) -> NDArray[np.int32]:
    """Return (H, W, 2) labels of closed outlines, each (N, 2) of x and y, px; all of class 1.

    Where outlines overlap, the px belongs to the first. Outlines of fewer than 3 points, or
    outside of the image, leave their number unused.
    """
    from skimage.draw import polygon

    instances = np.zeros((height_px, width_px), np.int32)
    for number, outline in enumerate(outlines, 1):
        if len(outline) < 3:
            continue
        rows, columns = polygon(outline[:, 1], outline[:, 0], instances.shape)
        free = instances[rows, columns] == 0
        instances[rows[free], columns[free]] = number
    return np.stack([instances, (instances > 0).astype(np.int32)], axis=2)
