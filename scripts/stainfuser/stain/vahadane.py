"""Vahadane's stain normalisation: sparse, non-negative separation of two stains.

Vahadane et al. 2016 (IEEE Trans. Med. Imaging 35(8)): optical density is the product of pixelwise
amounts and two stain vectors, min 1/2 |V - H W|^2 + lambda |H|_1 with H, W >= 0 and unit stain
vectors; amounts are scaled so that their 99th percentiles agree, then given the target's vectors.
The libraries that offer it either need SPAMS (GPL) or warn that theirs is unstable with today's
scikit-learn, so it is written out here; with two stains, amounts and vectors have closed forms.
Settings (luminance, lambda, percentile) are those the libraries share with StainTools.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# CIE L* / 100 above which a pixel is glass.
LUMINANCE_LIMIT = 0.8
# Lambda of the separation, and of the amounts once the stains are known.
SPARSITY, AMOUNT_SPARSITY = 0.1, 0.01
STRONG_PERCENTILE = 99.0
# Fewer stained pixels do not give two stains.
MIN_STAINED_PX = 64
# The vectors are found on at most so many pixels, evenly spaced.
MAX_PX = 20_000
MAX_ITERATIONS, TOLERANCE = 200, 1e-6
# Where the iteration starts: angles in the plane of the two largest components (Macenko 2009).
START_PERCENTILES = (99.0, 1.0)


def stain_vectors(rgb: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return (2, 3) unit stain vectors, haematoxylin first; None without enough stained pixels.

    `rgb` is (H, W, 3) uint8.
    """
    from skimage.color import rgb2lab

    lightness = rgb2lab(rgb)[..., 0] / 100.0
    od = _optical_density(rgb)[lightness < LUMINANCE_LIMIT]
    if len(od) < MIN_STAINED_PX:
        return None
    od = od[:: -(-len(od) // MAX_PX)]
    vectors = _start(od)
    for _ in range(MAX_ITERATIONS):
        before = vectors
        vectors = _updated(od, _amounts(od, vectors, SPARSITY), vectors)
        if np.abs(vectors - before).max() < TOLERANCE:
            break
    # Haematoxylin absorbs more red.
    return vectors if vectors[0, 0] >= vectors[1, 0] else vectors[::-1].copy()


class VahadaneNormalizer:
    """Fitted to a target; `normalize` gives sources its stains."""

    def __init__(self, target: NDArray[np.uint8]) -> None:
        """Fit to (H, W, 3) uint8 RGB; raises `ValueError` where it shows no two stains."""
        vectors = stain_vectors(target)
        if vectors is None:
            raise ValueError("the target shows hardly any stained pixel")
        self.vectors = vectors
        self.strong = _strong(_amounts(_flat(target), vectors, AMOUNT_SPARSITY))

    def normalize(self, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) uint8 RGB; raises `ValueError` where it shows no two stains."""
        vectors = stain_vectors(source)
        if vectors is None:
            raise ValueError("the source shows hardly any stained pixel")
        amounts = _amounts(_flat(source), vectors, AMOUNT_SPARSITY)
        strong = _strong(amounts)
        if (strong <= 0).any() or (self.strong <= 0).any():
            raise ValueError("one of the two stains is absent")
        od = (amounts * (self.strong / strong)) @ self.vectors
        return np.rint(255.0 * np.exp(-od)).astype(np.uint8).reshape(source.shape)


def _optical_density(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    return -np.log(np.maximum(rgb, 1) / 255.0)


def _flat(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    return _optical_density(rgb).reshape(-1, 3)


def _strong(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.percentile(amounts, STRONG_PERCENTILE, axis=0)


def _start(od: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the extreme directions of the data in its plane, made non-negative."""
    plane = np.linalg.eigh(np.cov(od, rowvar=False))[1][:, [2, 1]]
    plane *= np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    along, across = (od @ plane).T
    angles = np.percentile(np.arctan2(across, along), START_PERCENTILES)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    return _unit(np.maximum(vectors, 1e-3))


def _amounts(
    od: NDArray[np.float64], vectors: NDArray[np.float64], sparsity: float
) -> NDArray[np.float64]:
    """Return (N, 2): the exact non-negative lasso of each pixel on two unit vectors."""
    gain = od @ vectors.T - sparsity
    cosine = float(vectors[0] @ vectors[1])
    both = (gain - cosine * gain[:, ::-1]) / max(1.0 - cosine**2, 1e-9)
    alone = np.maximum(gain, 0.0)
    # With one stain at zero the other stands alone: the one that explains more.
    alone[alone < alone[:, ::-1]] = 0.0
    return np.where((both >= 0).all(axis=1, keepdims=True), both, alone)


def _updated(
    od: NDArray[np.float64], amounts: NDArray[np.float64], vectors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return vectors after one round of block coordinate descent (Mairal et al. 2010)."""
    gram, cross = amounts.T @ amounts, amounts.T @ od
    vectors = vectors.copy()
    for row in range(2):
        if gram[row, row] > 0:
            step = (cross[row] - gram[row] @ vectors) / gram[row, row]
            vectors[row] = _unit(np.maximum(vectors[row] + step, 0.0))
    return vectors


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
