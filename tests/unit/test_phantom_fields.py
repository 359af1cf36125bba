"""Fields, textures and scattered points that phantoms are drawn with."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.seeds import generator
from stainfuser.stain.phantom_fields import (
    Upsampler,
    cell_walls,
    lattice,
    noise_tile,
    ramp,
    signed_distance,
    smooth_noise,
    streaks,
    tiled_block,
    without_crowding,
)


def shifted_correlation(field, rows, columns):
    first = field[: field.shape[0] - rows, : field.shape[1] - columns]
    second = field[rows:, columns:]
    return np.corrcoef(first.ravel(), second.ravel())[0, 1]


@pytest.mark.parametrize("scale_px", [1.0, 6.0, 25.0])
def test_noise_has_unit_variance_at_every_scale(scale_px):
    field = smooth_noise(generator(1, scale_px), (700, 500), scale_px)
    assert field.shape == (700, 500)
    assert field.dtype == np.float32
    assert field.std() == pytest.approx(1.0, abs=0.12)


def test_noise_is_as_wide_as_asked_in_both_directions():
    field = smooth_noise(generator(2), (800, 800), 20.0)
    for rows, columns in ((1, 0), (0, 1)):
        assert shifted_correlation(field, 4 * rows, 4 * columns) > 0.8
        assert abs(shifted_correlation(field, 60 * rows, 60 * columns)) < 0.15


def test_a_block_is_a_part_of_the_whole_interpolation():
    coarse = generator(3).standard_normal((26, 26)).astype(np.float32)
    upsampler = Upsampler((26, 26), (101, 101), 4)
    whole = upsampler.full(coarse)
    block = upsampler.block(coarse, slice(37, 101), slice(0, 53))
    assert np.allclose(block, whole[37:101, :53], atol=1e-6)


def test_interpolation_keeps_a_slope_in_place():
    coarse = np.tile((np.arange(30, dtype=np.float32) + 0.5) * 4, (30, 1))
    whole = Upsampler((30, 30), (120, 120), 4).full(coarse)
    middle = whole[60, 20:100]
    assert np.allclose(middle, np.arange(20, 100) + 0.5, atol=1e-3)


def test_a_tile_paves_the_plane_without_seams():
    tile = noise_tile(generator(4), 64, 5.0)
    plane = tiled_block(tile, slice(0, 130), slice(0, 130), (10, 20))
    assert np.array_equal(plane[:64, :64], plane[64:128, 64:128])
    steps = np.abs(np.diff(plane, axis=1)).mean(axis=0)
    assert steps.max() < 3 * steps.mean()


def test_streaks_run_along_the_direction_field():
    angle = np.deg2rad(30.0)
    noise = generator(5).standard_normal((300, 300)).astype(np.float32)
    ones = np.ones_like(noise)
    field = streaks(noise, np.cos(angle) * ones, np.sin(angle) * ones, (1.0, 2.5, 6.0))
    along = shifted_correlation(field, round(8 * np.sin(angle)), round(8 * np.cos(angle)))
    across = shifted_correlation(field.T, round(8 * np.sin(angle)), round(8 * np.cos(angle)))
    assert along > 0.5
    assert abs(across) < 0.2


def test_crowded_points_are_thinned_and_the_first_stays():
    points = np.array([[0.0, 0.0], [1.0, 0.0], [2.5, 0.0], [20.0, 0.0]])
    keep = without_crowding(points, np.full(4, 2.0))
    assert keep.tolist() == [True, False, True, True]


def test_a_lattice_fills_the_frame_at_its_spacing():
    points = lattice(generator(6), (400, 600), 10.0)
    expected = 400 * 600 / (10.0**2 * np.sqrt(3) / 2)
    assert len(points) == pytest.approx(expected, rel=0.05)
    assert points[:, 0].max() < 600
    assert points[:, 1].max() < 400


def test_cell_walls_lie_half_way_between_their_points():
    points = np.array([[10.0, 20.0], [30.0, 20.0], [20.0, 200.0]])
    walls = cell_walls(points, (40, 40), np.ones((40, 40), bool))
    assert walls[20].argmin() in (19, 20)
    assert walls[20, 10] > 8
    assert cell_walls(points, (40, 40), np.zeros((40, 40), bool)).min() == 99


def test_signed_distance_is_positive_inside():
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    distance = signed_distance(mask)
    assert distance[30, 30] == pytest.approx(9.5, abs=1.0)
    assert distance[30, 50] == pytest.approx(-10.5, abs=1.0)
    assert signed_distance(np.zeros((5, 5), bool)).max() < 0 < signed_distance(mask | True).min()


def test_a_ramp_falls_when_its_ends_are_swapped():
    values = np.array([-1.0, 0.0, 0.5, 1.0, 2.0], np.float32)
    assert ramp(values, 0.0, 1.0).tolist() == [0, 0, 0.5, 1, 1]
    assert ramp(values, 1.0, 0.0).tolist() == [1, 1, 0.5, 0, 0]
