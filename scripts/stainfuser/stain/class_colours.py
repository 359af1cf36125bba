"""The typical colour of nuclei and of the rest of the tissue, for swatches a person can compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od
from stainfuser.stain.style_distance import CLASS_NAMES, soft_classes

# A class with a smaller part of the pixels has no colour worth showing.
MIN_SHARE = 0.01


def class_colours(
    pixels: NDArray[np.uint8], classes_of: NDArray[np.uint8] | None = None
) -> dict[str, tuple[int, int, int]]:
    """Return class → mean colour (in optical density) as RGB in [0, 255].

    `pixels` is (..., 3) uint8 RGB. `classes_of`, of the same shape, are the pixels that tell the
    classes, by default `pixels` themselves: for a normalised image pass its source. Classes that
    hardly occur are left out.
    """
    flat = pixels.reshape(-1, 3)
    classes = soft_classes(flat if classes_of is None else classes_of.reshape(-1, 3))
    shares = classes.sum(axis=0) / max(len(flat), 1)
    means = classes.T @ rgb_to_od(flat) / np.maximum(classes.sum(axis=0), 1e-9)[:, None]
    colours = zip(CLASS_NAMES, shares, od_to_rgb(means), strict=True)
    return {
        name: tuple(int(value) for value in colour)
        for name, share, colour in colours
        if share >= MIN_SHARE
    }


def typical_colours(
    tiles: NDArray[np.uint8], classes_of: NDArray[np.uint8] | None = None
) -> dict[str, tuple[int, int, int]]:
    """Return class → median over (N, H, W, 3) tiles of each tile's `class_colours`.

    A pen mark or a fold that fills one tile does not move the median.
    """
    sources = tiles if classes_of is None else classes_of
    found = [class_colours(*pair) for pair in zip(tiles, sources, strict=True)]
    return {name: _median([each[name] for each in found if name in each]) for name in _seen(found)}


def _seen(found: Sequence[dict[str, tuple[int, int, int]]]) -> list[str]:
    return [name for name in CLASS_NAMES if any(name in each for each in found)]


def _median(colours: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    red, green, blue = np.median(np.array(colours), axis=0)
    return int(red), int(green), int(blue)
