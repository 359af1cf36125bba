"""Nuclei found by classical means, paired, and compared: before and after, result and target."""

from __future__ import annotations

import numpy as np
import pytest

from phantom_pictures import he_picture
from stainfuser.stain.instance_matching import match_instances
from stainfuser.stain.metrics import ssim
from stainfuser.stain.nucleus_agreement import (
    label_agreement,
    nucleus_agreement,
    nucleus_shapes,
)
from stainfuser.stain.nucleus_segmentation import segment_nuclei
from stainfuser.stain.nucleus_style import NucleusReference, nucleus_colours

STROMA, NUCLEUS = (225, 150, 190), (90, 60, 140)


def painted(centres: list[tuple[int, int]], radius: float, nucleus=NUCLEUS, side: int = 128):
    """Return round nuclei on stroma with a little noise, (side, side, 3) uint8."""
    y, x = np.mgrid[:side, :side]
    image = np.empty((side, side, 3))
    image[:] = STROMA
    for cy, cx in centres:
        image[np.hypot(y - cy, x - cx) <= radius] = nucleus
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


GRID = [(y, x) for y in range(20, 120, 30) for x in range(20, 120, 30)]


def test_pairs_are_those_that_overlap_by_more_than_half():
    first, second = np.zeros((2, 4, 12), np.int32)
    first[:, :4], second[:, 1:4] = 7, 2  # IoU 12/16
    first[:, 6:8], second[:2, 6:8] = 9, 5  # IoU 4/8: not more than half
    second[:, 10:] = 3
    matches = match_instances(first, second)
    assert matches.first.tolist() == [7] and matches.second.tolist() == [2]
    assert matches.iou.tolist() == [0.75]
    assert (matches.first_count, matches.second_count) == (2, 3)
    assert matches.f1 == pytest.approx(2 / 5)


def test_images_without_objects_match_nothing():
    empty, one = np.zeros((8, 8), np.int32), np.ones((8, 8), np.uint16)
    assert len(match_instances(empty, one).iou) == 0
    assert match_instances(empty, one).f1 == 0.0
    assert np.isnan(match_instances(empty, empty).f1)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.zeros((4, 4), int), np.zeros((4, 5), int)),
        (np.zeros((4, 4), float), np.zeros((4, 4), int)),
        (np.full((4, 4), -1), np.zeros((4, 4), int)),
        (np.zeros((4, 4, 2), int), np.zeros((4, 4, 2), int)),
    ],
)
def test_what_is_no_pair_of_label_images_is_refused(first, second):
    with pytest.raises(ValueError, match="expected"):
        match_instances(first, second)


def test_shapes_are_those_of_scikit_image():
    from skimage.measure import regionprops

    random = np.random.default_rng(1)
    labels = np.zeros((60, 60), np.int32)
    for label, (y, x) in enumerate([(5, 5), (30, 8), (20, 40)], 1):
        labels[y : y + random.integers(4, 20), x : x + random.integers(4, 15)] = label
    labels[45:58, 20:58][np.tri(13, 38, dtype=bool)] = 4
    shapes = nucleus_shapes(labels)
    for row, region in enumerate(regionprops(labels)):
        assert shapes.area_px[row] == region.area
        # scikit-image takes px for points; they are squares, whose own variance is 1/12.
        large, small = np.array(region.inertia_tensor_eigvals) + 1 / 12
        assert shapes.axis_ratio[row] == pytest.approx(np.sqrt(small / large), rel=1e-6)


def test_agreement_worked_by_hand():
    before, after = np.zeros((2, 20, 40), np.int32)
    before[2:8, 2:8] = 1  # 6 x 6, found again as 6 x 9
    after[2:8, 2:11] = 4
    before[12:18, 2:8] = 2  # lost
    after[12:18, 20:26], after[2:8, 30:36] = 5, 6  # invented
    found = label_agreement(before, after)
    assert found["nucleus_f1"] == pytest.approx(2 / 5)
    assert found["nucleus_matched_fraction"] == 0.5
    assert found["nucleus_invented_fraction"] == pytest.approx(2 / 3)
    assert found["nucleus_area_change"] == pytest.approx(0.5)
    # A square has the ratio 1; with moments of px, 6 x 9 has exactly 6/9.
    assert found["nucleus_shape_change"] == pytest.approx(1 / 3)


def test_nothing_to_compare_is_nan_and_not_perfect():
    stroma = painted([], 1)
    assert segment_nuclei(stroma).max() == 0
    assert all(np.isnan(value) for value in nucleus_agreement(stroma, stroma).values())


def test_round_nuclei_are_counted_and_touching_ones_divided():
    assert segment_nuclei(painted(GRID, 6)).max() == len(GRID)
    assert segment_nuclei(painted([(40, 40), (40, 53), (90, 90)], 7)).max() == 3


def test_invented_nuclei_that_ssim_hardly_sees_are_found():
    source = he_picture(384, "mesa")
    result = source.copy()
    # Copies of real nuclei on stroma: a few hundred px of 147,456.
    labels = segment_nuclei(source)
    random = np.random.default_rng(0)
    placed = 0
    while placed < 12:
        label = int(random.integers(1, labels.max() + 1))
        rows, columns = np.nonzero(labels == label)
        dy, dx = random.integers(-340, 340, 2)
        y, x = rows + dy, columns + dx
        if min(y.min(), x.min()) < 0 or max(y.max(), x.max()) >= 384 or labels[y, x].any():
            continue
        result[y, x] = source[rows, columns]
        placed += 1
    found = nucleus_agreement(source, result, source_nuclei=labels)
    assert ssim(source, result) > 0.97
    assert found["nucleus_invented_fraction"] > 0.04
    assert found["nucleus_matched_fraction"] > 0.97


def test_a_change_of_stain_is_not_a_change_of_nuclei():
    source, truth = he_picture(384, "mesa"), he_picture(384, "harbour")
    found = nucleus_agreement(source, truth)
    assert found["nucleus_f1"] > 0.85 and found["nucleus_area_change"] < 0.12


def test_wrong_shapes_are_refused():
    image = painted(GRID, 6)
    with pytest.raises(ValueError, match="equal shape"):
        nucleus_agreement(image, image[:64])
    with pytest.raises(ValueError, match="uint8 RGB"):
        segment_nuclei(image.astype(np.float32))
    with pytest.raises(ValueError, match="labels of shape"):
        nucleus_colours(image, np.zeros((4, 4), int), 0.5)


def test_style_of_nuclei_by_hand():
    target, source = painted(GRID, 6, (60, 70, 110)), painted(GRID, 6)
    nuclei = segment_nuclei(source)
    reference = NucleusReference(target)
    assert NucleusReference(source).distance(source, nuclei) == pytest.approx(0.0, abs=0.02)
    expected = np.linalg.norm(np.log(np.array([91, 61, 141]) / np.array([61, 71, 111])))
    assert reference.distance(source, nuclei) == pytest.approx(expected, rel=0.1)


def test_the_mix_of_nuclei_does_not_fool_the_style_of_nuclei():
    """Small dark and large pale nuclei: their shares differ, their looks do not."""
    small, large = GRID[:8], GRID[8:]
    dark, pale = (70, 45, 110), (125, 95, 165)

    def mixed(darks, pales):
        image = painted(darks, 4, dark)
        other = painted(pales, 8, pale)
        is_pale = np.abs(other.astype(int) - np.array(pale)).sum(2) < 60
        image[is_pale] = other[is_pale]
        return image

    target, source = mixed(GRID[:11], GRID[11:]), mixed(GRID[:5], GRID[5:])
    nuclei = segment_nuclei(source)
    reference = NucleusReference(target)
    assert len(small) + len(large) == nuclei.max()
    assert reference.distance(source, nuclei) < 0.06
    # The pooled mean colour of nuclei would differ by far more.
    pooled = [
        nucleus_colours(image, segment_nuclei(image), 0.5).mean.mean(axis=0)
        for image in (target, source)
    ]
    assert np.linalg.norm(pooled[0] - pooled[1]) > 0.2


def test_no_nuclei_of_a_size_in_common_is_nan():
    stroma = painted([], 1)
    nuclei = segment_nuclei(painted(GRID, 6))
    assert np.isnan(NucleusReference(stroma).distance(painted(GRID, 6), nuclei))
