from __future__ import annotations

import numpy as np
import pytest

from painted_tiles import LABORATORIES, paint_tile
from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS, stain_directions
from stainfuser.stain.stain_features import STAIN_FEATURES, fill_unseen, stain_features
from stainfuser.stain.target_tiles import choose_target_tiles, cut_tile
from stainfuser.stain.tissue_features import (
    TISSUE_FEATURES,
    foreign_fraction,
    measure_slide_scale,
    tissue_features,
)


def tissue(tiles: list[np.ndarray], mpp: float = 0.5) -> np.ndarray:
    scale = measure_slide_scale(np.stack(tiles))
    return np.array([tissue_features(tile, scale, mpp) for tile in tiles])


def column(features: np.ndarray, name: str) -> np.ndarray:
    return features[:, TISSUE_FEATURES.index(name)]


def test_nuclear_fraction_follows_the_nuclei():
    fractions = [0.05, 0.15, 0.3]
    tiles = [paint_tile(seed, nuclear_fraction=f) for seed, f in enumerate(fractions)]
    np.testing.assert_allclose(column(tissue(tiles), "nuclear_fraction"), fractions, atol=0.05)


def test_lumens_are_seen():
    features = tissue([paint_tile(1, side_px=96), paint_tile(1, side_px=96, lumen=True)])
    assert column(features, "background_fraction")[0] < 0.02
    assert column(features, "background_fraction")[1] == pytest.approx(0.35, abs=0.05)
    assert column(features, "lumen_fraction")[1] > 0.2


def test_tissue_features_hardly_see_the_laboratory():
    by_laboratory = []
    for laboratory in LABORATORIES:
        tiles = [
            paint_tile(seed, laboratory, nuclear_fraction=0.08 * (1 + seed), lumen=seed == 2)
            for seed in range(4)
        ]
        by_laboratory.append(tissue(tiles))
    of_laboratories = np.std(by_laboratory, axis=0).mean(axis=0)
    of_tissue = np.mean(by_laboratory, axis=0).std(axis=0)
    ratio = of_laboratories / np.maximum(of_tissue, 1e-6)
    assert np.median(ratio) < 0.3, dict(zip(TISSUE_FEATURES, ratio.round(2), strict=True))


def test_stain_features_hardly_see_the_tissue():
    by_laboratory = [
        np.array(
            [
                stain_features(paint_tile(seed, laboratory, nuclear_fraction=0.1 + 0.1 * seed))
                for seed in range(3)
            ]
        )
        for laboratory in LABORATORIES
    ]
    means = slice(0, 6)
    within = np.std(by_laboratory, axis=1).mean(axis=0)[means]
    between = np.mean(by_laboratory, axis=1).std(axis=0)[means]
    assert (within < 0.4 * between).all()


def test_features_of_finer_tiles_agree():
    coarse = [paint_tile(3), paint_tile(4)]
    fine = [tile.repeat(2, axis=0).repeat(2, axis=1) for tile in coarse]
    np.testing.assert_allclose(tissue(fine, mpp=0.25), tissue(coarse), atol=1e-5)


@pytest.mark.parametrize("value", [0, 200, 255])
def test_flat_tiles_have_finite_features(value: int):
    tile = np.full((64, 64, 3), value, np.uint8)
    assert np.isfinite(tissue([tile])).all()
    assert np.isfinite(fill_unseen(stain_features(tile)[None])).all()


def test_no_nuclei_are_invented_in_bland_tissue():
    features = tissue([paint_tile(seed, nuclear_fraction=0.0) for seed in range(2)])
    assert column(features, "nuclear_fraction").max() < 0.02


def test_feature_names_count_the_features():
    assert stain_features(paint_tile(1)).shape == (len(STAIN_FEATURES),)
    assert tissue([paint_tile(1)]).shape == (1, len(TISSUE_FEATURES))


def test_what_a_tile_does_not_show_is_that_of_its_slide():
    tiles = [paint_tile(1, lumen=True), paint_tile(2), paint_tile(3, nuclear_fraction=0.0)]
    features = np.array([stain_features(tile) for tile in tiles])
    nuclei = slice(0, 3)
    assert np.isnan(features[2, nuclei]).all()
    filled = fill_unseen(features)
    np.testing.assert_allclose(filled[2, nuclei], features[:2, nuclei].mean(axis=0))
    white = STAIN_FEATURES.index("white_od_red")
    assert filled[1, white] == pytest.approx(0.03, abs=0.005)


def test_stain_directions_are_found():
    haematoxylin = np.array([0.65, 0.70, 0.29]) / np.linalg.norm([0.65, 0.70, 0.29])
    eosin = np.array([0.15, 0.85, 0.50]) / np.linalg.norm([0.15, 0.85, 0.50])
    strengths = np.random.default_rng(1).gamma(1.0, 0.5, (4000, 2))
    found = stain_directions(strengths @ np.stack([haematoxylin, eosin]))
    assert found[0] @ haematoxylin > 0.998
    assert found[1] @ eosin > 0.998


def test_stain_directions_of_glass_are_the_reference():
    od = rgb_to_od(np.full((64, 64, 3), 245, np.uint8))
    np.testing.assert_array_equal(stain_directions(od), REFERENCE_DIRECTIONS)


def test_target_tiles_are_those_with_tissue():
    image = np.full((128, 192, 3), 245, np.uint8)
    image[:, 64:] = paint_tile(5, side_px=128)
    corners = choose_target_tiles(image, 64, 3, np.random.default_rng(1))
    assert len(corners) == 3
    assert (corners[:, 0] >= 64).all()
    assert len(np.unique(corners, axis=0)) == 3


def test_target_tiles_cover_odd_sizes_and_small_images():
    image = paint_tile(5, side_px=150)
    corners = choose_target_tiles(image, 64, 100, np.random.default_rng(1))
    assert len(corners) == 9
    assert corners.max() == 150 - 64
    small = paint_tile(6, side_px=40)
    assert choose_target_tiles(small, 64, 4, np.random.default_rng(1)).tolist() == [[0, 0]]
    tile = cut_tile(small, 0, 0, 64)
    assert tile.shape == (64, 64, 3)
    np.testing.assert_array_equal(tile[:40, :40], small)
    np.testing.assert_array_equal(tile[40], tile[39])


def test_a_tiny_image_is_mirrored_as_often_as_needed():
    assert cut_tile(paint_tile(6, side_px=10), 0, 0, 64).shape == (64, 64, 3)


def test_ink_does_not_change_what_other_tiles_of_the_slide_are():
    clean = [paint_tile(seed, nuclear_fraction=0.1 + 0.1 * seed) for seed in range(3)]
    pen = np.full((64, 64, 3), (60, 64, 70), np.uint8)
    np.testing.assert_allclose(tissue([*clean, pen, pen])[:3], tissue(clean), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("ink", [(60, 64, 70), (50, 130, 80), (40, 80, 200)])
def test_inks_are_foreign_and_laboratories_are_not(ink):
    scale = measure_slide_scale(np.stack([paint_tile(1)]))
    inked = np.full((64, 64, 3), ink, np.uint8)
    assert foreign_fraction(inked, scale) == 1.0
    for laboratory in LABORATORIES:
        assert foreign_fraction(paint_tile(1, laboratory), scale) < 0.02


def test_real_stains_are_not_foreign(shared_data):
    from stainfuser.io.images import read_image

    for path in sorted((shared_data / "images" / "histoqc").glob("*.png")):
        tile = read_image(path)[:256, :256]
        assert foreign_fraction(tile, measure_slide_scale(tile[None])) < 0.02
