"""k-means clusters of tiles, and samples that cover them evenly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Restarts of k-means, and tiles it is fitted on at most (all are assigned).
RESTARTS, MAX_FITTED = 8, 50_000
# Standardised values are cut here, so that one odd tile is not a cluster of its own.
MAX_SIGMAS = 4.0


@dataclass(frozen=True)
class Clustering:
    """Clusters of standardised features.

    Attributes
    ----------
    mean, std
        (F,) of the features; a constant feature has std 1.
    weights
        (F,) what a standardised feature counts.
    centroids
        (K, F) in standardised, weighted units.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    weights: NDArray[np.float64]
    centroids: NDArray[np.float64]

    def standardize(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (N, F) features in units of the centroids."""
        sigmas = np.clip((features - self.mean) / self.std, -MAX_SIGMAS, MAX_SIGMAS)
        return sigmas * self.weights

    def distances(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the distance of (N, F) features to every centroid, (N, K)."""
        offset = self.standardize(features)[:, None, :] - self.centroids[None]
        return np.sqrt(np.square(offset).sum(axis=2))

    def assign(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the nearest centroid of (N, F) features, (N,) int64."""
        parts = [self.distances(part).argmin(axis=1) for part in _batches(features)]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def feature_means(self) -> NDArray[np.float64]:
        """Return the centroids in the features' own units, (K, F)."""
        return self.centroids / self.weights * self.std + self.mean


def fit_clusters(
    features: NDArray[np.float64],
    count: int,
    seed: int,
    *,
    order_by: int = 0,
    weights: NDArray[np.float64] | None = None,
) -> Clustering:
    """Standardise (N, F) features, N >= 1, and divide them into at most `count` clusters.

    Clusters are numbered by ascending feature `order_by`, so that numbers mean something. There
    are fewer where there are fewer different tiles. The same features give the same clusters.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    weights = np.ones(features.shape[1]) if weights is None else weights
    std = features.std(axis=0)
    frame = Clustering(features.mean(axis=0), np.where(std > 1e-9, std, 1.0), weights, np.zeros(0))
    points = frame.standardize(features)
    count = min(count, len(np.unique(points.round(9), axis=0)))
    rng = np.random.default_rng(seed)
    if len(points) > MAX_FITTED:
        points = points[rng.choice(len(points), MAX_FITTED, replace=False)]
    # One thread: the order of a threaded sum is not fixed, and a tie would fall either way.
    with threadpool_limits(1):
        model = KMeans(count, n_init=RESTARTS, random_state=seed % 2**32).fit(points)
    order = np.argsort(model.cluster_centers_[:, order_by], kind="stable")
    return Clustering(frame.mean, frame.std, weights, model.cluster_centers_[order])


def balanced_sample(
    keys: Sequence[NDArray], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draw up to `count` of N rows, evenly over the first key, within it over the second, ...

    Parameters
    ----------
    keys
        Arrays of N labels, the most important first.

    Returns
    -------
    Row numbers in ascending order. Where a group has too few rows the others make up for it.
    """
    rows = len(keys[0])
    ranks = rng.permutation(rows).astype(np.float64)
    codes = [_shuffled_codes(key, rng) for key in keys]
    for depth in range(len(codes), 0, -1):
        group = _join_codes(codes[:depth])
        ranks = _rank_within(group, ranks) + codes[depth - 1] / (codes[depth - 1].max() + 2.0)
    return np.sort(np.argsort(ranks, kind="stable")[:count])


def _rank_within(group: NDArray[np.int64], order: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each row's place within its group, counted from 0 by ascending `order`."""
    sorted_rows = np.lexsort((order, group))
    starts = np.r_[True, np.diff(group[sorted_rows]) != 0]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(group)), 0))
    ranks = np.empty(len(group))
    ranks[sorted_rows] = np.arange(len(group)) - first
    return ranks


def _shuffled_codes(key: NDArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return labels as numbers in random order, so that the remainder favours no label."""
    names, codes = np.unique(key, return_inverse=True)
    return rng.permutation(len(names))[codes]


def _join_codes(codes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _batches(features: NDArray[np.float64], size: int = 65536) -> list[NDArray[np.float64]]:
    return [features[start : start + size] for start in range(0, len(features), size)]
