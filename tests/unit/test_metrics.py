"""Colour, signal and structure metrics against values worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stainfuser
from stainfuser.stain import metrics


def flat(value, size_px: int = 16) -> np.ndarray:
    return np.full((size_px, size_px, 3), value, dtype=np.uint8)


@pytest.fixture
def texture() -> np.ndarray:
    return np.random.default_rng(3).integers(60, 200, (48, 40, 3)).astype(np.uint8)


def test_ciede2000_of_white_and_black_is_100():
    assert metrics.ciede2000(flat(255), flat(0)) == pytest.approx(100.0, abs=1e-3)


def test_ciede2000_of_grey_levels_follows_lightness():
    # Greys 119 and 120: L* 50.034 and 50.432; S_L is 1 at L* 50, so the difference is delta L*.
    assert metrics.ciede2000(flat(119), flat(120)) == pytest.approx(0.398, abs=0.004)


def test_ciede2000_map_and_mask_tell_where():
    changed = flat(200)
    changed[:8] = 180
    difference = metrics.ciede2000_map(flat(200), changed)
    assert difference.shape == (16, 16) and difference.dtype == np.float32
    assert np.all(difference[8:] == 0) and np.all(difference[:8] > 4)
    upper = np.zeros((16, 16), dtype=bool)
    upper[:8] = True
    whole = metrics.ciede2000(flat(200), changed)
    assert metrics.ciede2000(flat(200), changed, upper) == pytest.approx(2 * whole)
    assert np.isnan(metrics.ciede2000(flat(200), changed, np.zeros((16, 16), dtype=bool)))


def test_psnr_of_a_constant_error():
    # 20 lg(255 / 5)
    assert metrics.psnr(flat(100), flat(105)) == pytest.approx(34.1514, abs=1e-4)


def test_psnr_of_equal_images_is_finite_and_the_largest(texture):
    assert metrics.psnr(texture, texture) == metrics.PSNR_OF_IDENTICAL_DB
    off_by_one = texture.copy()
    off_by_one[0, 0, 0] += 1
    assert metrics.psnr(texture, off_by_one) < metrics.PSNR_OF_IDENTICAL_DB


def test_ssim_of_flat_images_is_the_luminance_term():
    # (2 ab + c1) / (a^2 + b^2 + c1), c1 = (0.01 * 255)^2
    c1 = 2.55**2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert metrics.ssim(flat(100), flat(120)) == pytest.approx(expected, abs=1e-5)


def test_ssim_is_one_for_equal_and_falls_with_noise(texture):
    noise = np.random.default_rng(0).integers(-30, 30, texture.shape)
    noisy = np.clip(texture.astype(int) + noise, 0, 255).astype(np.uint8)
    assert metrics.ssim(texture, texture) == pytest.approx(1.0, abs=1e-6)
    assert 0.2 < metrics.ssim(texture, noisy) < 0.97


def test_ssim_of_a_tiny_image_is_nan():
    assert np.isnan(metrics.ssim(flat(3, 10), flat(3, 10)))


def test_gradient_correlation_ignores_a_change_of_colour_and_contrast(texture):
    recoloured = (texture * 0.5 + np.array([30.0, 60.0, 10.0])).astype(np.uint8)
    assert metrics.gradient_correlation(texture, recoloured) > 0.999


def test_gradient_correlation_sees_inversion_and_other_structure(texture):
    assert metrics.gradient_correlation(texture, 255 - texture) == pytest.approx(-1.0, abs=1e-6)
    other = np.random.default_rng(4).integers(60, 200, texture.shape).astype(np.uint8)
    assert abs(metrics.gradient_correlation(texture, other)) < 0.1


def test_gradient_correlation_of_flat_images_is_defined(texture):
    blank = np.full_like(texture, 240)
    assert metrics.gradient_correlation(blank, blank - 40) == 1.0
    assert metrics.gradient_correlation(texture, blank) == 0.0
    assert metrics.gradient_correlation(blank, texture) == 0.0
    assert metrics.gradient_correlation(flat(1, 1), flat(9, 1)) == 1.0


@pytest.mark.parametrize("name", ["ciede2000", "psnr", "ssim", "gradient_correlation"])
def test_wrong_arrays_are_refused(name, texture):
    measure = getattr(metrics, name)
    with pytest.raises(ValueError, match="equal shape"):
        measure(texture, texture[1:])
    with pytest.raises(ValueError, match="uint8 RGB"):
        measure(texture.astype(np.float32), texture.astype(np.float32))
    with pytest.raises(ValueError, match="uint8 RGB"):
        measure(texture[..., 0], texture[..., 0])


def test_metrics_do_not_import_torch():
    code = "import sys; import stainfuser.stain.metrics; sys.exit('torch' in sys.modules)"
    scripts = Path(stainfuser.__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(scripts)})
