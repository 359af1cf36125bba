from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.seams import DEPTH_PX, STRIP_PX, draw_lines, seam_score, step

SIDE_PX, TILE_PX = 1024, 128


def steps_of(source: np.ndarray, result: np.ndarray, count: int = 300) -> tuple:
    borders = range(TILE_PX, SIDE_PX, TILE_PX)
    drawn = draw_lines(SIDE_PX, SIDE_PX, borders, count, np.random.default_rng(0))
    cuts = [
        [(np.s_[n.y_px : n.y_px + n.size_px[1], n.x_px : n.x_px + n.size_px[0]], n) for n in lines]
        for lines in drawn
    ]
    return tuple(np.array([step(source[c], result[c], n) for c, n in part]) for part in cuts)


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = rng.integers(60, 220, (SIDE_PX // 16, SIDE_PX // 16, 3)).astype(float)
    picture = np.roll(coarse.repeat(16, 0).repeat(16, 1), (4, 12), (0, 1))
    return (picture + rng.normal(0, 3, picture.shape)).astype(np.uint8)


def test_strips_lie_inside_and_across_the_right_lines():
    borders = [128, 256, 640]
    at, elsewhere = draw_lines(900, 700, borders, 400, np.random.default_rng(0))
    for lines in (at, elsewhere):
        assert 300 < len(lines) <= 400
        for line in lines:
            width, height = line.size_px
            assert {width, height} == {2 * DEPTH_PX, STRIP_PX}
            assert 0 <= line.x_px <= 900 - width and 0 <= line.y_px <= 700 - height
    place = {(line.x_px if line.upright else line.y_px) + DEPTH_PX for line in at}
    assert place == set(borders)
    other = {(line.x_px if line.upright else line.y_px) + DEPTH_PX for line in elsewhere}
    assert not other & set(borders) and all(at % 8 == 0 for at in other)


def test_a_smooth_map_of_colours_has_no_seam(tissue):
    result = np.clip(0.8 * tissue.astype(float) + 20, 0, 255).astype(np.uint8)
    assert 0.8 < seam_score(*steps_of(tissue, result)) < 1.25


@pytest.mark.parametrize("size", [1.0, 3.0])
def test_steps_of_one_grey_level_from_tile_to_tile_are_seen(tissue, size):
    rng = np.random.default_rng(2)
    offsets = rng.choice([-size, size], (SIDE_PX // TILE_PX, SIDE_PX // TILE_PX, 1))
    result = tissue + offsets.repeat(TILE_PX, 0).repeat(TILE_PX, 1)
    result = np.clip(np.rint(result + rng.normal(0, 1, result.shape)), 0, 255).astype(np.uint8)
    assert seam_score(*steps_of(tissue, result)) > 2


def test_what_cannot_be_seen_counts_as_equal():
    assert seam_score(np.full((9, 3), 1e-4), np.zeros((9, 3))) < 1.01
