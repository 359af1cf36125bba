from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.blend import (
    changeable,
    feather,
    glass_colour,
    glass_to_tissue,
    interpolate,
    px_centres,
    soften_mask,
)
from stainfuser.stain.structure_guard import guard_reach_px, local_change


def disc(side_px: int = 100) -> np.ndarray:
    y, x = np.mgrid[:side_px, :side_px] - side_px // 2
    return x * x + y * y < (side_px // 4) ** 2


def test_soft_mask_is_full_on_tissue_and_fades_without_a_step():
    mask = disc()
    weight = soften_mask(mask, 8.0).astype(int)
    assert weight[mask].min() > 240
    assert weight[0].max() == 0
    assert np.abs(np.diff(weight, axis=0)).max() < 80
    assert not soften_mask(np.zeros((9, 9), bool), 8.0).any()


def test_glass_colour_ignores_ink_and_unscanned_parts():
    mask = disc()
    thumbnail = np.full((100, 100, 3), 240, np.uint8)
    thumbnail[..., 1] = 236
    thumbnail[mask] = (200, 100, 160)
    thumbnail[20:26, 20:80] = (30, 60, 200)
    thumbnail[:10] = 0
    assert glass_colour(thumbnail, mask, 8.0).tolist() == [240, 236, 240]


def test_glass_colour_ignores_white_filler_but_believes_white_glass():
    mask = disc()
    thumbnail = np.full((100, 100, 3), 255, np.uint8)
    assert glass_colour(thumbnail, mask, 8.0).tolist() == [255, 255, 255]
    thumbnail[40:60] = (243, 240, 243)
    thumbnail[:, 30:70] = (243, 240, 243)
    thumbnail[mask] = (200, 100, 160)
    assert glass_colour(thumbnail, mask, 8.0).tolist() == [243, 240, 243]


def test_glass_colour_of_a_picture_without_glass_is_light():
    thumbnail = np.random.default_rng(0).normal((220, 150, 190), 8, (60, 60, 3)).astype(np.uint8)
    white = glass_colour(thumbnail, np.ones((60, 60), bool), 8.0)
    assert white.shape == (3,) and white.min() > 200


@pytest.mark.parametrize("strength", [0.3, 1.0, 3.0])
@pytest.mark.parametrize(
    ("stain", "weight"),
    [
        ((0.65, 0.70, 0.29), 1.0),  # haematoxylin
        ((0.62, 0.62, 0.42), 1.0),  # as a counterstain
        ((0.07, 0.99, 0.11), 1.0),  # eosin
        ((0.28, 0.56, 0.78), 1.0),  # DAB
        ((0.80, 0.24, 0.56), 0.0),  # green ink
        ((0.93, 0.37, 0.10), 0.0),  # blue ink
    ],
)
def test_ink_is_told_by_its_hue_however_strong(stain, weight, strength):
    assert changeable(strength * np.array([stain]))[0] == pytest.approx(weight, abs=0.01)


def test_black_and_glass_are_no_ink():
    nearly_black = np.array([[5.5, 3.3, 3.3], [4.1, 5.5, 2.9]])
    assert (changeable(nearly_black) == 1.0).all()
    noise = np.random.default_rng(0).normal(0.0, 0.01, (1000, 3))
    assert (changeable(noise) < 0.01).all()


def test_glass_to_tissue():
    od = np.array([[-0.1] * 3, [0.02] * 3, [0.0, 0.5, 0.0], [0.06, 0.06, 0.06]])
    weight = glass_to_tissue(od)
    assert weight[:3].tolist() == [0.0, 0.0, 1.0]
    assert 0 < weight[3] < 1


@pytest.mark.parametrize("scale", [1.0, 1.7, 2.0, 16.3, 0.5])
def test_interpolation_does_not_depend_on_the_cut_out(scale):
    plane = np.random.default_rng(0).random((40, 50, 3)).astype(np.float32)
    count = int(40 * scale)
    rows, columns = px_centres(0, count, scale), px_centres(0, count, scale)
    whole = interpolate(plane, rows, columns)
    start = count // 3
    stop = start + max(1, count // 4)
    low, high = int(np.floor(rows[start])), int(np.floor(rows[stop - 1])) + 2
    part = interpolate(plane[low:high, low:high], rows[start:stop], columns[start:stop], (low, low))
    assert (part == whole[start:stop, start:stop]).all()


def test_interpolation_of_equal_scale_is_the_plane():
    plane = np.random.default_rng(0).random((8, 9)).astype(np.float32)
    assert (interpolate(plane, px_centres(0, 8, 1.0), px_centres(0, 9, 1.0)) == plane).all()


def test_interpolation_of_a_ramp_is_exact():
    ramp = np.arange(20, dtype=np.float32)[:, None] * np.ones((1, 4), np.float32)
    rows = px_centres(10, 20, 2.0)
    assert np.allclose(interpolate(ramp, rows, np.zeros(1))[:, 0], rows)


@pytest.mark.parametrize(("side_px", "overlap_px"), [(64, 16), (64, 32), (64, 1), (64, 0), (65, 7)])
def test_feathers_add_up_to_one(side_px, overlap_px):
    stride = side_px - overlap_px
    position = np.arange(stride * 5)
    total = sum(feather(position - i * stride, side_px, overlap_px) for i in range(-1, 6))
    assert np.allclose(total, 1.0, atol=1e-6)


def test_the_guard_keeps_a_colour_map_up_to_the_edge_of_a_nucleus():
    rng = np.random.default_rng(0)
    od = np.full((80, 80, 3), 0.3, np.float32)
    od[30:50, 30:50] = 1.2
    od += rng.normal(0, 0.02, od.shape).astype(np.float32)
    change = 0.4 * od - 0.1
    slope, offset = local_change(od, change, 4)
    assert np.abs(slope * od + offset - change).max() < 0.08
    low_pass_error = 0.4 * 0.9 / 2  # of a Gaussian at the edge
    assert np.abs(slope * od + offset - change).max() < low_pass_error / 2


def test_the_guard_removes_what_the_source_does_not_show():
    rng = np.random.default_rng(1)
    od = np.full((80, 80, 3), 0.4, np.float32) + rng.normal(0, 0.02, (80, 80, 3)).astype(np.float32)
    invented = rng.normal(0, 0.3, od.shape).astype(np.float32)
    slope, offset = local_change(od, 0.1 + invented, 4)
    assert (slope * od + offset).std() < 0.2 * invented.std()
    assert guard_reach_px(4) == 8
