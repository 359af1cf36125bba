"""mPQ+ of an arm over several targets, with intervals: pure arithmetic on counts.

Counts are an array (U, T, H, C, 4): tiles of tissue, targets, shifts of stain, classes, and the
columns of `panoptic_quality.COUNTS`. Resampling draws tissue (slides, then tiles), never shifts or
targets, which are chosen conditions and the same in every resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.bootstrap import resampling_weights
from stainfuser.stain.panoptic_quality import (
    area_over_targets,
    detection_f1,
    mean_panoptic_quality,
    panoptic_quality,
)

MEAN, AREA, WORST, GAIN, F1 = (
    "mpq_plus_mean",
    "mpq_plus_auc",
    "mpq_plus_worst",
    "mpq_plus_gain",
    "detection_f1",
)
# The shift of tiles that need no normalising. They have a score of their own and enter no other.
UNSHIFTED = "unshifted"


class Score(NamedTuple):
    """A value with its interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


def score_arm(
    counts: NDArray[np.float64],
    beside: Mapping[str, NDArray[np.float64]],
    groups: NDArray[np.integer],
    classes: Sequence[str],
    shifts: Sequence[str],
    rng: np.random.Generator,
    samples: int,
    confidence: float,
) -> dict[str, Score]:
    """Score the counts (U, T, H, C, 4) of one arm.

    Parameters
    ----------
    counts
        See the module.
    beside
        Name of a difference → counts of the same tiles after another arm: the mean of this arm
        minus that of the other, resampled in pairs.
    groups
        (U,) slide or section of each tile.
    classes, shifts
        Names, for ``pq_<class>`` and ``mpq_plus_<shift>``.
    rng, samples, confidence
        Draws the resamples; their number; coverage of the interval.

    Returns
    -------
    dict
        Over targets, of mPQ+ pooled over tiles and shifts: mean, area under the sorted curve, the
        worst; the differences of the mean to what is `beside`; F1 of detection in the right class,
        PQ of each class and mPQ+ under each shift (and of tiles that are `UNSHIFTED`), each the
        mean over targets. One piece of tissue has no interval.
    """
    drawn = resampling_weights(groups, rng, samples)
    weights = np.concatenate([np.ones((1, len(counts))), drawn])
    values = _all_scores(counts, weights, classes, shifts)
    for name, other in beside.items():
        values[name] = values[MEAN] - _all_scores(other, weights, classes, shifts)[MEAN]
    if len(counts) == 1:
        # One piece of tissue says nothing about others.
        return {name: Score(float(found[0]), *[float("nan")] * 2) for name, found in values.items()}
    return {name: _with_interval(found, confidence) for name, found in values.items()}


def undefined_scores() -> Mapping[str, Score]:
    """Return the scores of an arm that made nothing."""
    return {name: Score(*[float("nan")] * 3) for name in (MEAN, AREA, WORST)}


def _all_scores(
    counts: NDArray[np.float64],
    weights: NDArray[np.float64],
    classes: Sequence[str],
    shifts: Sequence[str],
) -> dict[str, NDArray[np.float64]]:
    """Return name → (B,): each row of `weights` (B, U) is one way to count the tiles."""
    by_shift = np.einsum("bu,uthck->bthck", weights, counts)
    shifted = [index for index, name in enumerate(shifts) if name != UNSHIFTED]
    pooled = by_shift[:, :, shifted].sum(axis=2)
    of_target = mean_panoptic_quality(pooled)
    per_class = _nan_mean(panoptic_quality(pooled))
    per_shift = _nan_mean(mean_panoptic_quality(by_shift))
    found = {
        MEAN: of_target.mean(axis=1),
        AREA: area_over_targets(of_target),
        WORST: of_target.min(axis=1),
        F1: detection_f1(pooled).mean(axis=1),
    }
    found |= {f"pq_{name}": per_class[:, index] for index, name in enumerate(classes)}
    return found | {f"mpq_plus_{name}": per_shift[:, index] for index, name in enumerate(shifts)}


def _nan_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of (B, T, ...) over targets, NaN where all are."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=1) / defined.sum(axis=1)


def _with_interval(values: NDArray[np.float64], confidence: float) -> Score:
    """Return the first of (B,) values and the percentiles of the others that are defined."""
    value, drawn = float(values[0]), values[1:][np.isfinite(values[1:])]
    if not np.isfinite(value) or not len(drawn):
        return Score(value, float("nan"), float("nan"))
    levels = [(1 - confidence) / 2, (1 + confidence) / 2]
    low, high = (float(bound) for bound in np.quantile(drawn, levels))
    return Score(value, min(low, value), max(high, value))
