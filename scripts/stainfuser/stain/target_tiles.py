"""Tiles of a user's target image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import rgb_to_od

TISSUE_OD = 0.12


def choose_target_tiles(
    image: NDArray[np.uint8], tile_px: int, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose up to `count` tiles with much tissue from a (H, W, 3) uint8 RGB image.

    Returns
    -------
    (n, 2) int64 top left corners, x then y, px of the image. Tiles lie on a grid, which covers
    the image by overlapping where its sides are no multiples; of the tiles with at least nine
    tenths of the most tissue found, n are drawn. An image smaller than a tile gives one tile.
    """
    corners = np.array(
        [(x, y) for y in _starts(image.shape[0], tile_px) for x in _starts(image.shape[1], tile_px)]
    )
    tissue = np.array([_tissue_fraction(cut_tile(image, x, y, tile_px)) for x, y in corners])
    order = rng.permutation(len(corners))
    good = tissue >= 0.9 * tissue.max()
    ranked = sorted(
        order, key=lambda index: (not good[index], 0 if good[index] else -tissue[index])
    )
    return corners[np.sort(ranked[:count])]


def cut_tile(image: NDArray[np.uint8], x_px: int, y_px: int, tile_px: int) -> NDArray[np.uint8]:
    """Cut a (tile_px, tile_px, 3) tile; an image that is too small is mirrored at its rim."""
    tile = image[y_px : y_px + tile_px, x_px : x_px + tile_px]
    missing = [(0, tile_px - tile.shape[0]), (0, tile_px - tile.shape[1]), (0, 0)]
    return np.pad(tile, missing, mode="symmetric")


def _starts(side_px: int, tile_px: int) -> list[int]:
    """Return evenly spread starts of tiles that together cover a side."""
    if side_px <= tile_px:
        return [0]
    tiles = -(-side_px // tile_px)
    return [round(i * (side_px - tile_px) / (tiles - 1)) for i in range(tiles)]


def _tissue_fraction(tile: NDArray[np.uint8]) -> float:
    return float((rgb_to_od(tile[::2, ::2]).mean(axis=-1) > TISSUE_OD).mean())
