"""The tissue mask against known truth, and against what makes simpler rules fail."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stainfuser.stain.tile_grid import grid_corners, tissue_of_squares
from stainfuser.stain.tissue import (
    draw_mask,
    image_tissue_mask,
    otsu_threshold,
    tissue_fraction,
    tissue_mask,
)

SIDE_PX = 320
GLASS = np.array([243, 242, 244], np.float32)


def _blob() -> np.ndarray:
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] / SIDE_PX - 0.5
    edge = 0.30 + 0.04 * np.sin(7 * np.arctan2(y, x))
    return np.hypot(x, y) < edge


TRUTH = _blob()


def _overview(strength: float = 1.0, glass: np.ndarray = GLASS) -> np.ndarray:
    """Return stained tissue on glass, (S, S, 3) float; absorption multiplies the glass."""
    rng = np.random.default_rng(0)
    absorbed = np.zeros((SIDE_PX, SIDE_PX, 3), np.float32)
    absorbed[TRUTH] = (0.09, 0.45, 0.22)
    nuclei = TRUTH & (rng.random(TRUTH.shape) < 0.25)
    absorbed[nuclei] = (0.75, 0.95, 0.4)
    picture = glass * np.exp(-strength * absorbed)
    return picture + rng.normal(0, 1.5, picture.shape)


def _uint8(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def _iou(picture: np.ndarray, truth: np.ndarray = TRUTH, alpha: np.ndarray | None = None) -> float:
    mask = tissue_mask(_uint8(picture), alpha, um_per_px=8.0)
    return (mask & truth).sum() / (mask | truth).sum()


def test_plain_tissue():
    assert _iou(_overview()) > 0.96


@pytest.mark.parametrize("strength", [0.15, 0.4, 2.0])
def test_pale_and_dark_stain(strength):
    assert _iou(_overview(strength)) > 0.94


@pytest.mark.parametrize(
    "glass", [(250, 240, 200), (215, 228, 240), (200, 200, 200), (244, 232, 240), (255, 255, 255)]
)
def test_coloured_glass(glass):
    assert _iou(_overview(glass=np.array(glass, np.float32))) > 0.94


def test_black_edge():
    picture = _overview()
    picture[:, :25] = picture[-15:] = (8, 6, 9)
    assert _iou(picture) > 0.94


@pytest.mark.parametrize("ink", [(30, 130, 70), (35, 60, 190), (25, 28, 30)])
def test_pen_beside_and_over_tissue(ink):
    picture = _overview()
    picture[20:30, 40:280] = ink
    picture[40:280, 150:160] = ink
    truth = TRUTH.copy()
    truth[:, 148:162] = False
    assert _iou(picture, truth) > 0.92


def test_transparent_band_is_never_tissue():
    picture = _overview()
    alpha = np.full(TRUTH.shape, 255, np.uint8)
    alpha[:, 120:200] = 0
    picture[:, 120:200] = 0
    mask = tissue_mask(_uint8(picture), alpha, um_per_px=8.0)
    assert not mask[:, 120:200].any()
    assert _iou(picture, TRUTH & (alpha > 0), alpha) > 0.93
    expected = (TRUTH & (alpha > 0)).sum() / (alpha > 0).sum()
    assert tissue_fraction(mask, alpha) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    "colour", [(255, 255, 255), (243, 241, 243), (235, 220, 232), (190, 190, 190), (0, 0, 0)]
)
def test_a_blank_slide_has_no_tissue(colour):
    noise = np.random.default_rng(1).normal(0, 2, (SIDE_PX, SIDE_PX, 3))
    assert not tissue_mask(_uint8(noise + colour), um_per_px=8.0).any()


def test_an_absent_slide_has_no_tissue():
    nothing = np.zeros((20, 30, 3), np.uint8)
    mask = tissue_mask(nothing, np.zeros((20, 30), np.uint8), um_per_px=8.0)
    assert not mask.any()
    assert tissue_fraction(mask, np.zeros((20, 30), np.uint8)) == 0


def test_dust_is_dropped_and_vessels_are_filled():
    picture = _overview()
    picture[10:14, 10:14] = (150, 80, 140)
    picture[158:163, 158:163] = GLASS
    mask = tissue_mask(_uint8(picture), um_per_px=8.0)
    assert not mask[:30, :30].any()
    assert mask[155:166, 155:166].all()


@pytest.mark.parametrize("side", [1, 3, 9, 64, 200])
def test_small_white_images_have_no_tissue(side):
    assert not image_tissue_mask(np.full((side, side, 3), 255, np.uint8), None)[1].any()


@pytest.mark.parametrize("side", [1, 3, 9, 70])
def test_any_size_works(side):
    rgb = np.full((side, side + 1, 3), (200, 120, 170), np.uint8)
    overview, mask = image_tissue_mask(rgb, None)
    assert overview.shape[:2] == mask.shape


def test_images_filled_with_tissue_are_tissue(shared_data):
    for name in ("veta/example1.tif", "veta/example2.tif", "histoqc/template3.png"):
        with Image.open(shared_data / "images" / name) as image:
            mask = image_tissue_mask(np.asarray(image.convert("RGB")), None)[1]
        assert mask.mean() > 0.98, name


def test_real_sections(shared_data):
    expected = {"Rat-Kidney_HE.jpg": (0.57, 0.64), "Izd2-29-041-w35_HE.jpg": (0.45, 0.58)}
    for name, (low, high) in expected.items():
        with Image.open(shared_data / "images/birl" / name) as image:
            mask = tissue_mask(np.asarray(image.convert("RGB")), um_per_px=8.0)
        assert low < mask.mean() < high, name


def test_otsu_separates_two_classes():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(20, 4, 3000), rng.normal(120, 10, 1000)])
    assert 30 < otsu_threshold(values) < 100
    assert np.isfinite(otsu_threshold(np.full(10, 7.0)))


def test_the_overlay_tints_outlines_and_fades():
    rgb = np.full((400, 400, 3), 200, np.uint8)
    mask = np.zeros((50, 50), bool)
    mask[10:40, 10:40] = True
    drawn = draw_mask(rgb, mask)
    assert drawn.shape == rgb.shape
    assert (drawn[5, 5] > 200).all()
    assert drawn[200, 200, 2] > drawn[200, 200, 0]
    blue = (drawn == (0, 90, 230)).all(axis=-1)
    assert blue[200, 75:86].any()
    assert not blue[150:250, 150:250].any()


def test_grids_cover_without_overlap():
    corners = grid_corners((1000, 600), 256.4)
    assert corners.tolist() == [
        [0, 0], [256, 0], [512, 0], [0, 256], [256, 256], [512, 256]
    ]  # fmt: skip
    assert grid_corners((512, 256), 256).tolist() == [[0, 0], [256, 0]]
    assert grid_corners((200, 130), 256).tolist() == [[0, 0]]
    assert len(grid_corners((200, 100), 256)) == 0


def test_the_tissue_of_squares_is_counted():
    mask = np.zeros((10, 20), bool)
    mask[:5, :10] = True
    corners = np.array([[0, 0], [100, 0], [50, 25], [150, 0]])
    found = tissue_of_squares(mask, (200, 100), corners, 50)
    assert found.tolist() == [1.0, 0.0, 0.5, 0.0]
    # A square over the edge counts what is inside.
    assert tissue_of_squares(mask, (200, 100), np.array([[0, 0]]), 400).tolist() == [0.25]
