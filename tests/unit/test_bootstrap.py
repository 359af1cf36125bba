"""Bootstrap intervals: hand-worked cases, coverage, and clusters that widen them."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.bootstrap import bootstrap_means


def interval(values, clusters, samples: int = 2000, seed: int = 0):
    values = np.asarray(values, float).reshape(len(clusters), -1)
    rng = np.random.default_rng(seed)
    return bootstrap_means(values, np.asarray(clusters), rng, samples, 0.95)


def test_constant_values_have_an_interval_of_no_width():
    found = interval([3.0] * 6, [0, 0, 0, 1, 1, 1])
    assert (found.mean[0], found.low[0], found.high[0], found.count[0]) == (3.0, 3.0, 3.0, 6)


def test_one_cluster_of_two_values_reaches_both():
    # Resampled means are 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4.
    found = interval([0.0, 1.0], [0, 0])
    assert (found.mean[0], found.low[0], found.high[0]) == (0.5, 0.0, 1.0)


def test_the_interval_of_many_independent_tiles_is_that_of_the_mean():
    values = np.random.default_rng(1).normal(size=400)
    found = interval(values, np.arange(400), samples=4000)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.high[0] - found.mean[0] == pytest.approx(half, rel=0.25)
    assert found.mean[0] - found.low[0] == pytest.approx(half, rel=0.25)


def test_tiles_that_repeat_their_slide_do_not_narrow_the_interval():
    of_slide = np.random.default_rng(2).normal(size=6)
    once = interval(of_slide, range(6))
    often = interval(np.repeat(of_slide, 50), np.repeat(range(6), 50))
    as_if_independent = interval(np.repeat(of_slide, 50), range(300))
    assert width(often) == pytest.approx(width(once), rel=0.15)
    assert width(often) > 4 * width(as_if_independent)


def width(found) -> float:
    return float(found.high[0] - found.low[0])


def test_values_that_are_not_finite_are_left_out_of_their_column_only():
    values = [[1.0, np.nan], [2.0, 5.0], [3.0, np.inf], [np.nan, np.nan]]
    found = interval(values, [0, 0, 1, 1])
    assert found.mean.tolist() == [2.0, 5.0] and found.count.tolist() == [3, 1]
    assert found.low[1] == found.high[1] == 5.0


def test_a_column_without_a_value_is_nan_with_count_0():
    found = interval([[np.nan, 1.0], [np.nan, 2.0]], [0, 1])
    assert np.isnan([found.mean[0], found.low[0], found.high[0]]).all()
    assert found.count.tolist() == [0, 2]


def test_no_tile_at_all():
    found = bootstrap_means(np.empty((0, 2)), np.empty(0, int), np.random.default_rng(0), 10, 0.95)
    assert np.isnan(found.mean).all() and found.count.tolist() == [0, 0]


def test_columns_are_resampled_alike():
    values = np.random.default_rng(3).normal(size=20)
    found = interval(np.stack([values, values + 10.0], axis=1), range(20))
    assert found.low[1] - found.low[0] == pytest.approx(10.0)


def test_the_seed_decides():
    values = np.random.default_rng(4).normal(size=30)
    same = [interval(values, range(30), 200, seed).low[0] for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


def test_many_tiles_take_little_time():
    import time

    values = np.random.default_rng(5).normal(size=(2000, 48))
    started_s = time.process_time()
    interval(values, np.repeat(np.arange(100), 20), samples=1000)
    assert time.process_time() - started_s < 5.0


@pytest.mark.parametrize(("samples", "confidence"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_impossible_settings_are_refused(samples, confidence):
    with pytest.raises(ValueError, match="samples"):
        bootstrap_means(
            np.ones((2, 1)), np.zeros(2, int), np.random.default_rng(0), samples, confidence
        )
