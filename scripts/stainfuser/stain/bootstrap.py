"""Confidence intervals of means over tiles that come from a few slides.

Tiles of one slide resemble each other, so slides are resampled first and tiles within them
second (the two-stage cluster bootstrap, Davison & Hinkley 1997, section 3.8). A draw is a vector
of weights over tiles: one matrix product then serves every method and metric, and all of them are
resampled alike, so that their differences can be compared. With one slide only its tiles are
resampled: the interval then says nothing about other slides.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Interval(NamedTuple):
    """Mean and interval of each column, (C,) float64; `count`: finite values of each, (C,) int."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]


def bootstrap_means(
    values: NDArray[np.float64],
    clusters: NDArray[np.integer],
    rng: np.random.Generator,
    samples: int,
    confidence: float,
) -> Interval:
    """Return the mean of every column with its percentile interval.

    Parameters
    ----------
    values
        (N, C), one row per tile; values that are not finite are left out of their column.
    clusters
        (N,), which slide each tile is from.
    rng
        Draws the resamples.
    samples
        Number of resamples, at least 1.
    confidence
        Coverage of the interval, in (0, 1).

    A column without a finite value gets NaN and count 0.
    """
    if samples < 1 or not 0.0 < confidence < 1.0:
        raise ValueError(f"{samples} samples at confidence {confidence}: expected >= 1 and (0, 1)")
    is_finite = np.isfinite(values)
    filled = np.where(is_finite, values, 0.0)
    weights = resampling_weights(clusters, rng, samples)
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = (weights @ filled) / (weights @ is_finite)
        mean = filled.sum(axis=0) / is_finite.sum(axis=0)
    low, high = _percentiles(drawn, confidence)
    # Rounding apart, the mean of few resamples may leave their percentiles.
    return Interval(mean, np.fmin(low, mean), np.fmax(high, mean), is_finite.sum(axis=0))


def resampling_weights(
    clusters: NDArray[np.integer], rng: np.random.Generator, samples: int
) -> NDArray[np.float64]:
    """Return how often each of N tiles is drawn in each resample, (samples, N).

    `clusters` (N,) says which slide a tile is from; `rng` draws.
    """
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    weights = np.zeros((samples, len(clusters)))
    if not members:
        return weights
    times = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=samples)
    for index, tiles in enumerate(members):
        draws = times[:, index] * len(tiles)
        weights[:, tiles] = rng.multinomial(draws, np.full(len(tiles), 1 / len(tiles)))
    return weights


def _percentiles(
    drawn: NDArray[np.float64], confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the two percentiles of each column of (B, C), leaving out undefined resamples."""
    low, high = np.full((2, drawn.shape[1]), np.nan)
    defined = np.isfinite(drawn).any(axis=0)
    if defined.any():
        levels = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
        low[defined], high[defined] = np.nanquantile(drawn[:, defined], levels, axis=0)
    return low, high
