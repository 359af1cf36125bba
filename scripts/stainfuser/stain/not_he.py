"""Pictures that are not H&E-stained tissue, so that a model can learn to leave them alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od

Tiles = NDArray[np.uint8]
# Directions of haematoxylin as a counterstain and of DAB (Ruifrok and Johnston 2001), and spread.
COUNTERSTAIN, DAB, DIRECTION_SPREAD = (0.62, 0.62, 0.42), (0.28, 0.56, 0.78), 0.06
PEN_OD = ((2.2, 1.6, 0.3), (2.0, 0.6, 1.4), (0.2, 1.8, 1.6), (2.2, 2.2, 2.1), (1.6, 0.5, 0.2))


def draw_not_he(
    tiles: Tiles, directions: NDArray[np.floating], rng: np.random.Generator
) -> tuple[Tiles, str]:
    """Turn H&E tiles into something that is not.

    Parameters
    ----------
    tiles
        (N, H, W, 3) uint8 RGB of one slide.
    directions
        (2, 3): its stain directions.

    Returns
    -------
    (N, H, W, 3) uint8 RGB, all of one kind, and the name of the kind.
    """
    kinds: dict[str, Callable[[], Tiles]] = {
        "blank": lambda: blank(tiles.shape, rng),
        "grey": lambda: grey(tiles, rng),
        "pen": lambda: pen(tiles, rng),
        "dab": lambda: dab(tiles, directions, rng),
        "odd_stain": lambda: odd_stain(tiles, directions, rng),
        "inverted": lambda: 255 - tiles,
        "fields": lambda: fields(tiles.shape, rng),
    }
    shares = {"dab": 0.3, "odd_stain": 0.2, "grey": 0.15, "blank": 0.12, "pen": 0.1, "fields": 0.08}
    names = list(kinds)
    weights = np.array([shares.get(name, 0.05) for name in names])
    name = str(rng.choice(names, p=weights / weights.sum()))
    return kinds[name](), name


def blank(shape: tuple[int, ...], rng: np.random.Generator) -> Tiles:
    """Glass, or no light at all: one colour with little noise and a slow shading."""
    level = rng.choice([rng.uniform(215, 255), rng.uniform(0, 25)], p=[0.85, 0.15])
    colour = level + rng.normal(0, 3, 3)
    shading = ndimage.gaussian_filter(rng.normal(0, 1, shape[1:3]), 20)
    shading *= rng.uniform(0, 4) / (shading.std() + 1e-9)
    noise = rng.normal(0, rng.uniform(0, 3), shape)
    return _to_uint8(colour + shading[..., None] + noise)


def grey(tiles: Tiles, rng: np.random.Generator) -> Tiles:
    """Tissue without colour, or all in one hue."""
    luminance = tiles.astype(np.float32) @ np.array([0.3, 0.59, 0.11], np.float32)
    tint = np.exp(rng.normal(0, rng.choice([0.0, 0.05]), 3))
    return _to_uint8(255 * (luminance[..., None] / 255) ** tint)


def pen(tiles: Tiles, rng: np.random.Generator) -> Tiles:
    """Ink over glass with next to no tissue in sight."""
    field = ndimage.gaussian_filter(rng.normal(0, 1, tiles.shape[:3]), (0, *rng.uniform(6, 25, 2)))
    limit = np.quantile(field, rng.uniform(0.1, 0.7))
    amount = np.clip((field - limit) / (0.2 * field.std() + 1e-9), 0, 1)[..., None]
    ink = np.array(PEN_OD[rng.integers(len(PEN_OD))]) * rng.uniform(0.3, 1.0)
    ink = ink * np.exp(rng.normal(0, 0.15, 3)) * (1 + rng.normal(0, 0.05, amount.shape))
    return od_to_rgb(rgb_to_od(blank(tiles.shape, rng)) * (1 - amount) + amount * ink)


def dab(tiles: Tiles, directions: NDArray[np.floating], rng: np.random.Generator) -> Tiles:
    """Immunohistochemistry: a pale blue counterstain, brown where the antigen is."""
    amounts = _amounts(tiles, directions)
    field = ndimage.gaussian_filter(rng.normal(0, 1, tiles.shape[:3]), (0, 8, 8))
    positive = 1 / (1 + np.exp(-(field / (field.std() + 1e-9) - rng.normal(0, 1.0)) * 3))
    nuclear = rng.random() < 0.5
    brown = amounts[..., 0] if nuclear else amounts[..., 1]
    blue = amounts[..., 0] * rng.uniform(0.25, 0.8) * (1 - positive * rng.uniform(0, 0.9))
    brown = brown * positive * rng.uniform(0.4, 1.6)
    film = amounts[..., 1] * rng.uniform(0.0, 0.15)
    vectors = [_direction(COUNTERSTAIN, rng), _direction(DAB, rng)]
    return od_to_rgb((blue + film)[..., None] * vectors[0] + brown[..., None] * vectors[1])


def odd_stain(tiles: Tiles, directions: NDArray[np.floating], rng: np.random.Generator) -> Tiles:
    """Two stains in hues haematoxylin and eosin never have: green, blue, yellow, orange."""
    amounts = _amounts(tiles, directions)
    while True:
        vectors = rng.dirichlet((0.8, 0.8, 0.8), 2)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        # Eosin lets blue and red pass and takes green; at least one stain here does not.
        if (vectors[:, 1] < 0.85 * vectors.max(axis=1)).any() and vectors[1, 1] < 0.75:
            return od_to_rgb(amounts @ (vectors * np.exp(rng.normal(0, 0.3, (2, 1)))))


def fields(shape: tuple[int, ...], rng: np.random.Generator) -> Tiles:
    """Random colours at a random scale: no tissue at all."""
    scale = rng.uniform(1, 20)
    field = ndimage.gaussian_filter(rng.normal(0, 1, shape), (0, scale, scale, 0))
    return _to_uint8(rng.uniform(60, 200, 3) + field / (field.std() + 1e-9) * rng.uniform(10, 60))


def _amounts(tiles: Tiles, directions: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return (N, H, W, 2): haematoxylin and eosin, unmixed with the slide's directions."""
    return np.clip(rgb_to_od(tiles) @ np.linalg.pinv(np.asarray(directions, np.float32)), 0, None)


def _direction(mean: tuple[float, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    direction = np.clip(rng.normal(mean, DIRECTION_SPREAD), 0.02, None)
    return direction / np.linalg.norm(direction)


def _to_uint8(values: NDArray[np.floating]) -> Tiles:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
