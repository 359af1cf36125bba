"""Reinhard and Macenko on tissue-like images, and on images where they have no answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stainfuser
from stainfuser.stain import classical

HAEMATOXYLIN, EOSIN = np.array([0.65, 0.70, 0.29]), np.array([0.07, 0.99, 0.11])


def stained(strengths: tuple[float, float], seed: int, size_px: int = 64) -> np.ndarray:
    """Return an image of two stains in random amounts, (S, S, 3) uint8 RGB."""
    amounts = np.random.default_rng(seed).gamma(2.0, 0.3, (size_px, size_px, 2)) * strengths
    od = amounts @ np.stack([HAEMATOXYLIN, EOSIN])
    return np.clip(240.0 * np.exp(-od), 0, 255).astype(np.uint8)


@pytest.fixture
def source() -> np.ndarray:
    return stained((1.0, 0.4), seed=1)


@pytest.fixture
def target() -> np.ndarray:
    return stained((0.5, 0.9), seed=2, size_px=80)


@pytest.mark.parametrize("method", classical.BENCHMARK_METHODS)
def test_the_result_takes_the_colour_of_the_target(method, source, target):
    result = classical.fit_classical(method, target)(source)
    assert not result.is_fallback
    assert result.image.shape == source.shape and result.image.dtype == np.uint8
    before = np.abs(source.mean((0, 1)) - target.mean((0, 1))).max()
    after = np.abs(result.image.mean((0, 1)) - target.mean((0, 1))).max()
    assert before > 15 and after < 0.3 * before
    if method in classical.CLASSICAL_METHODS:
        assert np.array_equal(result.image, getattr(classical, method)(source, target))


@pytest.mark.parametrize("method", classical.BENCHMARK_METHODS)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_flat_image_comes_back_as_it_was_and_is_flagged(method, level, source, target):
    flat = np.full((32, 32, 3), level, dtype=np.uint8)
    onto_target = classical.fit_classical(method, target)(flat)
    assert onto_target.is_fallback and np.array_equal(onto_target.image, flat)
    onto_flat = classical.fit_classical(method, flat)(source)
    assert onto_flat.is_fallback and np.array_equal(onto_flat.image, source)
    assert onto_flat.image is not source


@pytest.mark.parametrize("method", classical.BENCHMARK_METHODS)
@pytest.mark.filterwarnings("error")
def test_noisy_background_neither_crashes_nor_warns(method, target):
    noise = np.random.default_rng(0).integers(243, 249, (32, 32, 3)).astype(np.uint8)
    result = classical.fit_classical(method, target)(noise)
    assert result.image.shape == noise.shape and result.image.dtype == np.uint8


def test_macenko_is_undefined_with_a_handful_of_stained_pixels(target):
    nearly_blank = np.full((64, 64, 3), 245, dtype=np.uint8)
    nearly_blank[:4, :5] = (90, 50, 120)
    assert classical.fit_classical("macenko", target)(nearly_blank).is_fallback


def test_reinhard_is_undefined_for_a_grey_image(target):
    grey = np.repeat(np.arange(64, dtype=np.uint8)[:, None, None], 3, axis=2).repeat(8, axis=1)
    assert classical.fit_classical("reinhard", target)(grey).is_fallback


def test_an_unknown_method_is_refused(target):
    with pytest.raises(ValueError, match="vahadane"):
        classical.fit_classical("histogram", target)


def test_normalising_does_not_import_torch():
    code = (
        "import sys; import numpy as np; from stainfuser.stain.classical import macenko\n"
        "image = np.random.default_rng(0).integers(0, 200, (16, 16, 3)).astype(np.uint8)\n"
        "macenko(image, image); sys.exit('torch' in sys.modules)"
    )
    scripts = Path(stainfuser.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(scripts)})
