from __future__ import annotations

import numpy as np

from stainfuser.stain.clusters import balanced_sample, fit_clusters


def blobs(counts: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of well separated groups, in shuffled order, and their groups."""
    rng = np.random.default_rng(seed)
    centres = np.array([[0.0, 0.0, 5.0], [10.0, 0.0, 5.0], [20.0, 9.0, 5.0]])[: len(counts)]
    group = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return centres[group] + rng.normal(0, 0.3, (len(group), 3)) * (1, 1, 0), group


def test_clusters_find_groups_in_the_order_asked_for():
    features, group = blobs([30, 20, 10])
    clustering = fit_clusters(features, 3, seed=5)
    assert (clustering.assign(features) == group).all()
    descending = fit_clusters(-features, 3, seed=5)
    assert (descending.assign(-features) == 2 - group).all()


def test_centroids_come_back_in_the_units_of_the_features():
    features, group = blobs([30, 30])
    means = fit_clusters(features, 2, seed=1, weights=np.array([1.0, 0.5, 2.0])).feature_means()
    expected = [features[group == label].mean(axis=0) for label in (0, 1)]
    np.testing.assert_allclose(means, expected, atol=1e-9)


def test_same_features_give_the_same_clusters():
    features, _ = blobs([12, 25, 9])
    first, second = (fit_clusters(features, 4, seed=3) for _ in range(2))
    assert first.centroids.tobytes() == second.centroids.tobytes()


def test_fewer_tiles_than_clusters():
    assert len(fit_clusters(np.zeros((1, 3)), 8, seed=1).centroids) == 1
    assert len(fit_clusters(np.zeros((5, 3)), 8, seed=1).centroids) == 1
    features, _ = blobs([2, 1])
    assert len(fit_clusters(features, 8, seed=1).centroids) == 3


def test_one_odd_tile_does_not_spoil_the_rest():
    features, _ = blobs([40, 40])
    odd = np.vstack([features, [[1e6, 1e6, 5.0]]])
    labels = fit_clusters(odd, 3, seed=1).assign(features)
    assert len(np.unique(labels)) == 2


def test_assigning_nothing():
    features, _ = blobs([5, 5])
    assert fit_clusters(features, 2, seed=1).assign(np.zeros((0, 3))).shape == (0,)


def test_sample_is_even_over_the_first_key_then_the_second():
    cluster = np.repeat([0, 1, 2], [100, 40, 30])
    slide = np.tile(np.array(["a", "b"]), 85)
    rows = balanced_sample([cluster, slide], 24, np.random.default_rng(1))
    assert np.bincount(cluster[rows]).tolist() == [8, 8, 8]
    for label in range(3):
        assert (slide[rows][cluster[rows] == label] == "a").sum() == 4


def test_small_groups_are_made_up_for_by_others():
    cluster = np.repeat([0, 1, 2], [2, 50, 50])
    rows = balanced_sample([cluster], 30, np.random.default_rng(1))
    assert np.bincount(cluster[rows]).tolist() == [2, 14, 14]


def test_sample_of_more_than_there_is_takes_all():
    rows = balanced_sample([np.array([0, 0, 1])], 10, np.random.default_rng(1))
    assert rows.tolist() == [0, 1, 2]
    assert balanced_sample([np.array([0, 0, 1])], 0, np.random.default_rng(1)).tolist() == []


def test_sample_depends_on_the_seed_alone():
    cluster = np.arange(200) % 5
    draws = [balanced_sample([cluster], 20, np.random.default_rng(s)).tolist() for s in (1, 1, 2)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]
