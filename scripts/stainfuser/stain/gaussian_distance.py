"""Fréchet distance between Gaussians fitted to weighted observations, fast enough for a bootstrap.

|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) (Dowson and Landau 1982). The trace of the root is the
sum of the singular values of A1 A2^T, where S = A^T A and A are the weighted, centred observations:
with few observations of many features that is a small matrix, and no covariance is formed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Cloud(NamedTuple):
    """Mean (F,), and observations (N, F) or a root of the covariance (F, F): S = root^T root."""

    mean: Array
    root: Array


def fit_cloud(features: NDArray[np.floating], weights: NDArray[np.floating] | None = None) -> Cloud:
    """Fit to (N, F) observations, each counted `weights` times (N,); None: once.

    Raises `ValueError` for fewer than two observations.
    """
    features = np.asarray(features, np.float64)
    counts = np.ones(len(features)) if weights is None else np.asarray(weights, np.float64)
    total = counts.sum()
    if total < 2:
        raise ValueError("at least two observations are needed")
    kept = counts > 0
    features, counts = features[kept], counts[kept]
    mean = counts @ features / total
    root = (features - mean) * np.sqrt(counts / (total - 1))[:, None]
    if len(root) > root.shape[1]:
        # The R of a QR has the same R^T R and is smaller.
        root = np.linalg.qr(root, mode="r")
    return Cloud(mean, root)


def frechet_between(first: Cloud, second: Cloud) -> float:
    """Return the distance, >= 0."""
    shift = float(np.square(first.mean - second.mean).sum())
    spread = float(np.square(first.root).sum() + np.square(second.root).sum())
    common = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    return max(0.0, shift + spread - 2.0 * float(common))
