"""How a tile is stained, as far as possible whatever it shows: densities and colours by class."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS, stain_directions
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
# A class with less than this fraction of the pixels is not seen, nor is glass.
MIN_CLASS_FRACTION, MIN_GLASS_FRACTION = 0.01, 0.03
# Mean red optical densities of both tissue classes closer than this: no nuclei in view.
MIN_NUCLEAR_CONTRAST_OD = 0.06
# What is assumed of a slide that shows no nuclei, no other tissue or no glass: the reference
# stains at medium density, and a usual scanner's glass, about RGB 245.
ASSUMED = np.concatenate([
    1.3 * REFERENCE_DIRECTIONS[0], 0.7 * REFERENCE_DIRECTIONS[1], [0.0] * 3, [0.04] * 3, [0.0] * 2
])  # fmt: skip
SAMPLE_PIXELS = 8192


def stain_features(tile: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features of a (H, W, 3) uint8 RGB tile, (len(STAIN_FEATURES),) float64.

    Mean optical densities of nuclei and of other tissue, spread over tissue, density of the
    glass, and the hue of both stain directions, degrees. NaN for what the tile does not show; see
    `fill_unseen`.
    """
    step = max(1, int(np.sqrt(tile.shape[0] * tile.shape[1] / SAMPLE_PIXELS)))
    pixels = tile[step // 2 :: step, step // 2 :: step].reshape(-1, 3)
    od = rgb_to_od(pixels).astype(np.float64)
    classes = soft_classes(pixels).astype(np.float64)
    nuclei, other = (_class_mean(od, classes[:, index]) for index in (1, 2))
    if nuclei[0] - other[0] < MIN_NUCLEAR_CONTRAST_OD:
        nuclei = np.full(3, np.nan)
    tissue = classes[:, 1:].sum(axis=1)
    weight = max(tissue.sum(), 1e-6)
    std = np.sqrt(tissue @ np.square(od - tissue @ od / weight) / weight)
    is_glass = classes[:, 0] > 0.5
    has_glass = is_glass.mean() > MIN_GLASS_FRACTION
    white = np.quantile(od[is_glass], 0.3, axis=0) if has_glass else np.full(3, np.nan)
    hues = [_hue_deg(direction) for direction in stain_directions(od)]
    if np.isnan(nuclei[0]):
        hues[0] = np.nan
    return np.concatenate([nuclei, other, std, white, hues])


def fill_unseen(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace what tiles of one slide do not show by the slide's median, (N, F) → (N, F).

    What no tile of it shows is `ASSUMED`. So a tile without nuclei or glass lies where its slide
    does, and not in a cluster of its own.
    """
    seen = ~np.isnan(features)
    typical = ASSUMED.copy()
    for column in np.flatnonzero(seen.any(axis=0)):
        typical[column] = np.median(features[seen[:, column], column])
    return np.where(seen, features, typical)


def _class_mean(od: NDArray[np.float64], membership: NDArray[np.float64]) -> NDArray[np.float64]:
    if membership.mean() < MIN_CLASS_FRACTION:
        return np.full(3, np.nan)
    return membership @ od / membership.sum()


def _hue_deg(direction: NDArray[np.floating]) -> float:
    """Return the angle of a stain's absorption around the grey axis, degrees in (-180, 180].

    0 is equal absorption of red and blue above green; haematoxylin lies below eosin.
    """
    red, green, blue = (float(value) for value in direction)
    return float(np.degrees(np.arctan2(np.sqrt(3) / 2 * (blue - red), green - (red + blue) / 2)))
