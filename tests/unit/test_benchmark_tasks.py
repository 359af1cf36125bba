import numpy as np
import pytest

from stainfuser.stain.benchmark_tasks import (
    BANDS,
    background_change,
    bands_difference,
    composition_pairs,
    recolouring_task,
    region_bands,
    split_mosaic,
)
from stainfuser.stain.held_out_recolouring import FAMILIES, draw_held_out
from stainfuser.stain.metrics import ciede2000, gradient_correlation
from stainfuser.stain.optical_density import od_to_rgb
from stainfuser.stain.weak_labels import NUCLEI, weak_labels


def slide(side=240, seed=0):
    """Return tissue whose nuclei become denser to the right, over a rim of glass."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    amounts = np.zeros((side, side, 2))
    amounts[..., 1] = 0.4 + 0.1 * np.sin(x / 6) * np.cos(y / 9)
    for _ in range(150):
        cy, cx = rng.uniform(0, side), side * rng.uniform() ** 0.4
        amounts[..., 0] += 0.9 * (np.hypot(y - cy, x - cx) < 3)
    amounts = np.minimum(amounts, 1.0)
    amounts[: side // 12] = 0
    od = amounts @ np.array([[0.8, 0.75, 0.4], [0.1, 0.7, 0.35]]) + 0.03
    return od_to_rgb(od + rng.normal(0, 0.01, od.shape))


def test_matched_tissue_is_more_like_the_source_than_mismatched():
    pairs = composition_pairs(slide(), 60, 6, np.random.default_rng(0))
    assert len(pairs) >= 4

    def nuclei(tile):
        return (weak_labels(tile) == NUCLEI).mean()

    matched = np.mean([abs(nuclei(p.matched) - nuclei(p.source)) for p in pairs])
    mismatched = np.mean([abs(nuclei(p.mismatched) - nuclei(p.source)) for p in pairs])
    assert matched < 0.5 * mismatched


def test_an_image_without_tissue_gives_no_pairs():
    blank = np.full((100, 100, 3), 245, np.uint8)
    assert composition_pairs(blank, 30, 3, np.random.default_rng(0)) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_held_out_maps_are_visible_plausible_maps_of_colour(family):
    rgb = slide()
    for seed in range(3):
        drawn = draw_held_out(rgb, family, np.random.default_rng(seed))
        result = drawn(rgb)
        assert 3.0 < ciede2000(rgb, result) < 30.0
        assert gradient_correlation(rgb, result) > 0.9
        # Pixel by pixel: the same colour gives the same colour wherever it stands.
        assert np.array_equal(drawn(rgb[::-1, ::-1]), result[::-1, ::-1])
        white = drawn(np.full((1, 1, 3), 255, np.uint8))
        assert np.abs(white.astype(int) - 255).max() <= 6
        again = draw_held_out(rgb, family, np.random.default_rng(seed))(rgb)
        assert np.array_equal(again, result)


def test_unknown_family_is_refused():
    with pytest.raises(ValueError, match="unknown family"):
        draw_held_out(slide(), "gamma", np.random.default_rng(0))


def test_task_recolours_truth_and_references_alike():
    pair = composition_pairs(slide(), 60, 1, np.random.default_rng(0))[0]
    task = recolouring_task(pair, lambda rgb: 255 - rgb)
    assert np.array_equal(task.source, pair.source)
    for name in ("matched", "mismatched"):
        assert np.array_equal(getattr(task, name), 255 - getattr(pair, name))
    assert np.array_equal(task.truth, 255 - pair.source)


def test_mosaic_is_split_by_protocol_and_region():
    mosaic = np.zeros((10, 27, 3), np.uint8)
    for region in range(5):
        for protocol in range(9):
            mosaic[2 * region : 2 * region + 2, 3 * protocol : 3 * protocol + 3] = (
                10 * region,
                10 * protocol,
                0,
            )
    cells = split_mosaic(mosaic)
    assert cells.shape == (9, 5, 2, 3, 3)
    assert (cells[7, 3] == (30, 70, 0)).all()
    with pytest.raises(ValueError, match="does not divide"):
        split_mosaic(mosaic[:9])


def test_bands_compare_colour_and_not_arrangement():
    rgb = slide()
    shuffled = np.random.default_rng(0).permutation(rgb.reshape(-1, 3)).reshape(rgb.shape)
    assert region_bands(rgb).shape == (len(BANDS) - 1, 3)
    assert bands_difference(region_bands(rgb), region_bands(shuffled)) < 1e-6
    assert np.all(np.diff(region_bands(rgb)[:, 0]) > 0)
    darker = (rgb * 0.8).astype(np.uint8)
    assert bands_difference(region_bands(rgb), region_bands(darker)) > 5
    assert np.isfinite(region_bands(np.full((9, 9, 3), 255, np.uint8))).all()


def test_background_change_looks_at_glass_alone():
    rgb = slide()
    changed = rgb.copy()
    changed[60:] = 0
    assert background_change(rgb, changed) < background_change(rgb, (rgb * 0.9).astype(np.uint8))
    assert np.isnan(background_change(rgb[100:140, 100:140], rgb[100:140, 100:140]))
