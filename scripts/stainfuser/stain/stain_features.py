"""How a tile is stained, as far as possible whatever it shows: densities and colours by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.stain_directions import stain_directions
from stainfuser.stain.style_distance import soft_classes

_CHANNELS = ("red", "green", "blue")
STAIN_FEATURES = (
    *(f"haematoxylin_od_{channel}" for channel in _CHANNELS),
    *(f"eosin_od_{channel}" for channel in _CHANNELS),
    *(f"tissue_od_std_{channel}" for channel in _CHANNELS),
    *(f"white_od_{channel}" for channel in _CHANNELS),
    "haematoxylin_hue_deg",
    "eosin_hue_deg",
)
# Features count in the clusters by these weights after standardisation: directions and glass are
# noisy in tiles with one stain or no glass.
STAIN_WEIGHTS = np.array([1.0] * 9 + [0.5] * 5)
# Below this fraction of the pixels a class has no mean of its own.
MIN_CLASS_FRACTION = 0.01
SAMPLE_PIXELS = 8192


def stain_features(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features of a (H, W, 3) uint8 RGB tile, (len(STAIN_FEATURES),) float64.

    Mean optical densities of nuclei and of other tissue, spread over tissue, density of the
    glass, and the hue of both stain directions, degrees.
    """
    step = max(1, int(np.sqrt(tile.shape[0] * tile.shape[1] / SAMPLE_PIXELS)))
    pixels = tile[step // 2 :: step, step // 2 :: step].reshape(-1, 3)
    od = rgb_to_od(pixels).astype(np.float64)
    classes = soft_classes(pixels).astype(np.float64)
    tissue = classes[:, 1:].sum(axis=1)
    weight = max(tissue.sum(), 1e-6)
    mean = tissue @ od / weight
    std = np.sqrt(tissue @ np.square(od - mean) / weight)
    by_class = [_class_mean(od, classes[:, index], mean) for index in (1, 2)]
    white = np.minimum(np.quantile(od, 0.01, axis=0), 0.12)
    hues = [_hue_deg(direction) for direction in stain_directions(od)]
    return np.concatenate([*by_class, std, white, hues])


def _class_mean(
    od: NDArray[np.float64], membership: NDArray[np.float64], otherwise: NDArray[np.float64]
) -> NDArray[np.float64]:
    if membership.mean() < MIN_CLASS_FRACTION:
        return otherwise
    return membership @ od / membership.sum()


def _hue_deg(direction: NDArray[np.floating]) -> float:
    """Return the angle of a stain's absorption around the grey axis, degrees in (-180, 180].

    0 is equal absorption of red and blue above green; haematoxylin lies below eosin.
    """
    red, green, blue = (float(value) for value in direction)
    return float(np.degrees(np.arctan2(np.sqrt(3) / 2 * (blue - red), green - (red + blue) / 2)))
