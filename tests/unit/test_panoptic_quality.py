"""mPQ+ on cases worked by hand, beside the challenge's definition and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.panoptic_quality import (
    area_over_targets,
    detection_f1,
    mean_panoptic_quality,
    panoptic_counts,
    panoptic_quality,
)


def nuclei(*boxes: tuple[int, int, int, int, int], side: int = 32) -> np.ndarray:
    """Return (side, side, 2): boxes of top, left, height, width, class; instances from 1 on."""
    labels = np.zeros((side, side, 2), np.int32)
    for number, (top, left, height, width, kind) in enumerate(boxes, 1):
        labels[top : top + height, left : left + width] = number, kind
    return labels


def by_definition(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Count pair by pair, px by px, as the challenge's script is described."""
    counts = np.zeros((classes, 4))
    for kind in range(1, classes + 1):
        masks = [
            [
                (labels[..., 0] == n) & (labels[..., 1] == kind)
                for n in np.unique(labels[..., 0])
                if n
            ]
            for labels in (true, predicted)
        ]
        found = [[mask for mask in side if mask.any()] for side in masks]
        ious = [(a & b).sum() / (a | b).sum() for a in found[0] for b in found[1]]
        hits = [iou for iou in ious if iou > 0.5]
        lengths = [len(side) for side in found]
        counts[kind - 1] = len(hits), lengths[1] - len(hits), lengths[0] - len(hits), sum(hits)
    return counts


def random_labels(seed: int, classes: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    boxes = [
        (*random.integers(0, 24, 2), *random.integers(3, 9, 2), random.integers(1, classes + 1))
        for _ in range(12)
    ]
    return nuclei(*boxes)


def moved(labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the labels shifted by a px, some nuclei lost and some of another class."""
    random = np.random.default_rng(seed)
    out = np.roll(labels, 1, axis=0)
    for number in np.unique(out[..., 0])[1:]:
        where = out[..., 0] == number
        if random.random() < 0.2:
            out[where] = 0
        elif random.random() < 0.2:
            out[where, 1] = 1
    return out


def test_one_image_worked_by_hand():
    true = nuclei((0, 0, 4, 4, 1), (0, 10, 4, 4, 1), (10, 0, 4, 4, 2))
    # The first is found with IoU 12/16, the second with 8/16 (not enough), the third as class 1.
    predicted = nuclei((0, 0, 4, 3, 1), (0, 10, 2, 4, 1), (10, 0, 4, 4, 1))
    counts = panoptic_counts(true, predicted, 3)
    assert counts.tolist() == [[1, 2, 1, 0.75], [0, 0, 1, 0], [0, 0, 0, 0]]
    quality = panoptic_quality(counts)
    assert quality[:2].tolist() == [0.75 / 2.5, 0.0] and np.isnan(quality[2])
    assert mean_panoptic_quality(counts) == pytest.approx(0.15)
    assert detection_f1(counts) == pytest.approx(2 / 6)


def test_counts_are_pooled_over_images_and_qualities_are_not_averaged():
    box = (0, 0, 4, 4, 1)
    perfect = panoptic_counts(nuclei(box), nuclei(box), 1)
    missed = panoptic_counts(nuclei(box, (10, 0, 4, 4, 1), (20, 0, 4, 4, 1)), nuclei(), 1)
    assert mean_panoptic_quality(perfect) == 1.0 and mean_panoptic_quality(missed) == 0.0
    assert mean_panoptic_quality(perfect + missed) == pytest.approx(1 / 2.5)


def test_an_image_without_nuclei_counts_what_is_invented():
    counts = panoptic_counts(nuclei(), nuclei((0, 0, 4, 4, 2)), 2)
    assert counts[1].tolist() == [0, 1, 0, 0]
    assert mean_panoptic_quality(counts) == 0.0
    nothing = panoptic_counts(nuclei(), nuclei(), 2)
    assert np.isnan(mean_panoptic_quality(nothing)) and np.isnan(detection_f1(nothing))


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_the_definition(seed):
    true = random_labels(seed, 3)
    predicted = moved(true, seed)
    assert np.allclose(panoptic_counts(true, predicted, 3), by_definition(true, predicted, 3))


def test_quality_is_torchmetrics():
    torch = pytest.importorskip("torch")
    from torchmetrics.detection import PanopticQuality

    true = np.stack([random_labels(seed, 3) for seed in range(4)])
    predicted = np.stack([moved(labels, seed) for seed, labels in enumerate(true)])
    # Background is "stuff" there; its rows are left out.
    metric = PanopticQuality(things={1, 2, 3}, stuffs={0}, return_per_class=True)
    pairs = [torch.from_numpy(labels[..., ::-1].copy()) for labels in (predicted, true)]
    theirs = metric(*pairs).numpy().ravel()[:3]
    counts = sum(panoptic_counts(*pair, 3) for pair in zip(true, predicted, strict=True))
    assert panoptic_quality(counts) == pytest.approx(theirs, abs=1e-6)


def test_area_over_targets_by_hand():
    assert area_over_targets(np.array([0.2, 0.6, 0.4])) == pytest.approx(0.4)
    assert area_over_targets(np.array([0.1, 0.1, 0.7])) == pytest.approx((0.4 + 0.1) / 2)
    assert area_over_targets(np.array([[0.3], [0.5]])).tolist() == [0.3, 0.5]
    assert np.isnan(area_over_targets(np.array([0.3, np.nan])))


def test_mismatched_labels_are_refused():
    with pytest.raises(ValueError, match="equal shape"):
        panoptic_counts(nuclei(), nuclei(side=16), 1)
    with pytest.raises(ValueError, match="whole numbers"):
        panoptic_counts(nuclei().astype(float), nuclei(), 1)
    with pytest.raises(ValueError, match="whole numbers"):
        panoptic_counts(nuclei()[..., 0], nuclei()[..., 0], 1)
