"""Tissue of two colours in any stain: a stand-in whose truth in another stain is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.io.tile_store import open_tile_writer

GLASS = (242, 240, 243)
# Stroma and nuclei.
PALE_BLUE = ((205, 200, 215), (120, 125, 170))
DARK_PINK = ((222, 140, 185), (95, 50, 120))
ORANGE = ((235, 170, 140), (120, 70, 90))


def two_tone(seed: int, side: int, stain: tuple) -> NDArray[np.uint8]:
    """Return (side, side, 3) uint8: the same seed is the same tissue in every stain."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(side, side)), 2.5)
    grain = rng.normal(0, 3, (side, side, 1))
    tissue, nuclei = field > np.quantile(field, 0.15), field > np.quantile(field, 0.7)
    colours = np.array([GLASS, *stain], float)
    image = colours[tissue.astype(int) + nuclei.astype(int)] + grain
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def write_tiles(path: Path, stain: tuple, count: int = 4, side: int = 48, first: int = 0) -> Path:
    """Write a tile store of `count` tiles."""
    attributes = {"slide": path.stem, "mpp": 0.5, "level0_tile_px": side}
    with open_tile_writer(path, tile_px=side, attributes=attributes) as writer:
        for number in range(count):
            writer.append(two_tone(first + number, side, stain), number * side, 0)
    return path
