"""Vahadane's method against SPAMS, the library of its authors, and against its own objective."""

from __future__ import annotations

import numpy as np
import pytest
from test_classical import stained

from stainfuser.stain import vahadane

# spams-bin 2.6.14, trainDL(K=2, lambda1=0.1, mode=2, posAlpha, posD, iter=2000) on the pixels of
# the two images below with CIE L* under 80; then lasso(lambda1=0.01, mode=2, pos) and the 99th
# percentiles. SPAMS is under the GPL and therefore no dependency.
SPAMS_SOURCE = [[0.6024, 0.7384, 0.3032], [0.3519, 0.9044, 0.2413]]
SPAMS_TARGET = [[0.4956, 0.8204, 0.2853], [0.1902, 0.9658, 0.1759]]
SPAMS_RESULT = [[[189, 110, 207], [206, 109, 214]], [[229, 203, 238], [192, 104, 207]]]
SPAMS_MEAN = [194.93, 125.87, 211.14]


@pytest.fixture(scope="module")
def source():
    return stained((1.0, 0.4), seed=1)


@pytest.fixture(scope="module")
def target():
    return stained((0.5, 0.9), seed=2, size_px=80)


def test_stain_vectors_are_those_of_spams(source, target):
    assert np.abs(vahadane.stain_vectors(source) - SPAMS_SOURCE).max() < 0.005
    assert np.abs(vahadane.stain_vectors(target) - SPAMS_TARGET).max() < 0.005


def test_the_result_is_that_of_spams(source, target):
    result = vahadane.VahadaneNormalizer(target).normalize(source)
    assert np.abs(result[::32, ::32].astype(int) - SPAMS_RESULT).max() <= 3
    assert np.abs(result.mean((0, 1)) - SPAMS_MEAN).max() < 1.0


def test_amounts_are_the_sparse_non_negative_solution():
    rng = np.random.default_rng(0)
    vectors = np.array(SPAMS_SOURCE) / np.linalg.norm(SPAMS_SOURCE, axis=1, keepdims=True)
    od = rng.gamma(1.0, 0.4, (50, 3))

    def loss(amounts):
        return 0.5 * np.square(od - amounts @ vectors).sum(1) + 0.1 * amounts.sum(1)

    amounts = vahadane._amounts(od, vectors, 0.1)
    assert amounts.min() >= 0 and (amounts == 0).any() and (amounts > 0).all(axis=1).any()
    best = loss(amounts)
    for _ in range(300):
        nearby = np.maximum(amounts + rng.normal(0, 0.05, amounts.shape), 0)
        assert (loss(nearby) >= best - 1e-12).all()


def test_the_vectors_do_not_depend_on_the_order_of_pixels(source):
    assert np.array_equal(vahadane.stain_vectors(source), vahadane.stain_vectors(source.copy()))
    turned = vahadane.stain_vectors(source[::-1, ::-1])
    assert np.abs(turned - vahadane.stain_vectors(source)).max() < 1e-4


def test_no_stain_is_said():
    blank = np.full((32, 32, 3), 240, np.uint8)
    assert vahadane.stain_vectors(blank) is None
    with pytest.raises(ValueError, match="hardly any stained"):
        vahadane.VahadaneNormalizer(blank)
