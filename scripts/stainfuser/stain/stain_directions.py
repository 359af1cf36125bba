"""Stain directions: the two unit vectors in optical density that haematoxylin and eosin span."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Ruifrok and Johnston 2001, rows haematoxylin and eosin: what is assumed where a tile has not
# enough tissue to estimate its own.
REFERENCE_DIRECTIONS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105]], np.float32)
REFERENCE_DIRECTIONS /= np.linalg.norm(REFERENCE_DIRECTIONS, axis=1, keepdims=True)
# Pixels whose mean optical density is below this are not tissue.
MIN_TISSUE_OD = 0.12
# Fewest tissue pixels that directions are estimated from.
MIN_TISSUE_PIXELS = 200
# Percentile of the angles within the stain plane that is taken as a pure stain (Macenko 2009).
ANGLE_PERCENTILE = 1.0


def stain_directions(od: NDArray[np.floating]) -> NDArray[np.float32]:
    """Estimate the stain directions of an image (Macenko et al. 2009).

    Parameters
    ----------
    od
        (..., 3) optical densities.

    Returns
    -------
    (2, 3) float32 unit vectors, non-negative: haematoxylin (more red absorbed), then eosin.
    `REFERENCE_DIRECTIONS` where fewer than `MIN_TISSUE_PIXELS` pixels are tissue.
    """
    pixels = np.asarray(od, np.float64).reshape(-1, 3)
    tissue = pixels[pixels.mean(axis=1) > MIN_TISSUE_OD]
    if len(tissue) < MIN_TISSUE_PIXELS:
        return REFERENCE_DIRECTIONS.copy()
    _, vectors = np.linalg.eigh(tissue.T @ tissue / len(tissue))
    plane = vectors[:, [2, 1]] * np.sign(vectors[:, [2, 1]].sum(axis=0) + 1e-12)
    coordinates = tissue @ plane
    angles = np.arctan2(coordinates[:, 1], coordinates[:, 0])
    extremes = np.percentile(angles, [ANGLE_PERCENTILE, 100 - ANGLE_PERCENTILE])
    pair = np.stack([np.cos(extremes), np.sin(extremes)], axis=1) @ plane.T
    pair = np.clip(pair, 1e-3, None)
    pair /= np.linalg.norm(pair, axis=1, keepdims=True)
    return pair[np.argsort(-pair[:, 0])].astype(np.float32)
