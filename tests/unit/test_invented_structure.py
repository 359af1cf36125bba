"""Structure that has no counterpart in the source, and pictures that are shifted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from phantom_pictures import he_picture
from stainfuser.stain.classical import reinhard
from stainfuser.stain.invented_structure import invented_structure
from stainfuser.stain.metrics import ssim
from stainfuser.stain.optical_density import od_to_rgb, quadratic_features, rgb_to_od
from stainfuser.stain.registration import register_pair, register_shift


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return he_picture(256, "mesa")


def test_an_image_explains_itself(source):
    assert invented_structure(source, source) < 1e-4


def test_any_smooth_map_of_colour_is_explained(source):
    od = rgb_to_od(source)
    maps = np.random.default_rng(0).normal(0, 0.15, (10, 3))
    maps[1:4] += 0.8 * np.eye(3)
    result = od_to_rgb(np.clip(quadratic_features(od) @ maps + 0.05, 0, 5))
    assert ssim(source, result) < 0.97
    assert invented_structure(source, result) < 0.005


def test_a_map_that_changes_from_place_to_place_is_explained(source):
    strength = np.linspace(0.7, 1.3, 256, dtype=np.float32)[None, :, None]
    assert invented_structure(source, od_to_rgb(rgb_to_od(source) * strength)) < 0.005


def test_the_share_of_added_noise_is_its_share_of_the_energy():
    """Flat source, and a result whose detail is all its own; then half of each."""
    random = np.random.default_rng(0)
    own, added = (random.normal(0, 0.1, (128, 128, 1)) for _ in range(2))
    flat = np.full((128, 128, 3), 0.7)
    source = od_to_rgb(flat + own)
    assert invented_structure(od_to_rgb(flat), od_to_rgb(flat + added)) > 0.9
    assert invented_structure(source, od_to_rgb(flat + own + added)) == pytest.approx(0.5, abs=0.05)
    assert invented_structure(od_to_rgb(flat), od_to_rgb(flat)) == 0.0


def test_invented_nuclei_weigh_more_than_a_change_of_stain(source):
    """SSIM ranks an exact recolouring below a picture with nuclei painted in; this does not."""
    y, x = np.mgrid[:256, :256]
    invented = source.copy()
    for cy, cx in [(70, 90), (150, 40), (190, 200), (110, 170), (230, 110), (40, 220)]:
        invented[np.hypot(y - cy, x - cx) < 5] = (80, 60, 130)
    stained = reinhard(source, he_picture(256, "fjord", seed=5))
    assert ssim(source, invented) > ssim(source, stained)
    assert invented_structure(source, invented) > 4 * invented_structure(source, stained)
    assert invented_structure(source, invented) > 0.02


def test_a_change_of_focus_invents_nothing(source):
    od = rgb_to_od(source)
    soft = ndimage.gaussian_filter(od, (1.5, 1.5, 0))
    assert invented_structure(source, od_to_rgb(soft)) < 0.01
    assert invented_structure(source, od_to_rgb(np.clip(1.6 * od - 0.6 * soft, 0, 5))) < 0.02


def test_what_is_lost_is_found_by_swapping(source):
    blurred = od_to_rgb(ndimage.gaussian_filter(rgb_to_od(source), (1.5, 1.5, 0)))
    assert invented_structure(blurred, source) > 20 * invented_structure(source, blurred)


def test_small_images_and_wrong_ones(source):
    assert np.isnan(invented_structure(source[:39, :64], source[:39, :64]))
    assert invented_structure(source[:43, :61], source[:43, :61]) < 1e-3
    with pytest.raises(ValueError, match="images expected"):
        invented_structure(source, source[:128])
    with pytest.raises(ValueError, match="uint8"):
        invented_structure(source.astype(float), source)


@pytest.mark.parametrize("shift", [(0, 0), (5, -3), (-11, 8)])
def test_whole_shifts_are_found_and_undone_across_stains(shift):
    fixed, other = he_picture(320, "harbour"), he_picture(320, "fjord")
    dy, dx = shift
    moving = other[32 + dy : 288 + dy, 32 + dx : 288 + dx]
    pair = register_pair(fixed[32:288, 32:288], moving)
    assert pair.shift_px == pytest.approx(shift, abs=0.15)
    assert pair.fixed.shape == pair.moved.shape
    assert abs(pair.fixed.shape[0] - (256 - abs(dy))) <= 1
    assert ssim(pair.fixed, pair.moved) > ssim(fixed[32:288, 32:288], moving) - 1e-9


def test_a_shift_of_half_a_px_is_found():
    fixed = he_picture(256, "harbour")
    moving = ndimage.shift(fixed.astype(float), (-2.5, 1.5, 0), order=3, mode="nearest")
    found = register_shift(fixed, np.clip(moving, 0, 255).astype(np.uint8))
    assert found == pytest.approx((2.5, -1.5), abs=0.15)


def test_blank_pictures_are_not_shifted():
    blank = np.full((64, 64, 3), 240, np.uint8)
    assert register_shift(blank, blank) == (0.0, 0.0)
    with pytest.raises(ValueError, match="images expected"):
        register_shift(blank, blank[:32])
