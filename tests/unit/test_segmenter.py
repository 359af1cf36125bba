"""The segmentation network: targets, answers as labels, files, and that it learns one stain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from phantom_pictures import MPP, he_picture
from stainfuser.errors import InputError
from stainfuser.nn.segmenter import (
    Segmenter,
    SegmenterParams,
    class_weights,
    load_segmenter,
    save_segmenter,
    segmentation_loss,
)
from stainfuser.stain.nucleus_phantoms import NUCLEUS_CLASSES, classified_labels, grow_tissue
from stainfuser.stain.nucleus_targets import at_mpp, labels_of_prediction, learning_targets
from stainfuser.stain.panoptic_quality import mean_panoptic_quality, panoptic_counts
from stainfuser.stain.phantom_tissue import Section

PARAMS = SegmenterParams(("a", "b"), 0.5, (8, 8, 8))


@pytest.fixture(scope="module")
def section() -> Section:
    return grow_tissue(np.random.default_rng(0), 256, MPP)


def test_every_nucleus_of_a_phantom_has_one_class(section):
    labels = classified_labels(section)
    assert np.array_equal(labels[..., 0] > 0, labels[..., 1] > 0)
    pairs = np.unique(labels.reshape(-1, 2), axis=0)
    assert len(pairs) == len(np.unique(labels[..., 0]))
    assert set(pairs[1:, 1].tolist()) == set(range(1, len(NUCLEUS_CLASSES) + 1))


def test_a_section_of_unknown_kinds_is_refused(section):
    unknown = Section(section.grid, section.amounts, section.pen, section.labels)
    with pytest.raises(ValueError, match="kind of every nucleus"):
        classified_labels(unknown)


def test_targets_by_hand():
    labels = np.zeros((9, 12, 2), np.int32)
    labels[2:7, 1:6], labels[2:7, 6:11] = (1, 2), (2, 1)  # 5 x 5, side by side
    depth, classes = learning_targets(labels)
    # Distances to the rim, in px: 0.5 in the outermost ring, then 1.5, then 2.5.
    ring = [0.2, 0.6, 1.0, 0.6, 0.2]
    assert depth[4, 1:6].tolist() == pytest.approx(ring)
    assert depth[4, 6:11].tolist() == pytest.approx(ring)
    assert depth[labels[..., 0] == 0].max() == 0
    assert np.array_equal(classes, labels[..., 1])


def test_true_targets_give_the_true_labels(section):
    """The ceiling of what a perfect network would score after its depth map is divided."""
    labels = classified_labels(section)
    depth, classes = learning_targets(labels)
    chances = np.stack([classes == number for number in (1, 2, 3)]).astype(float)
    found = labels_of_prediction((classes > 0).astype(float), depth, chances, MPP)
    counts = panoptic_counts(labels, found, 3)
    assert mean_panoptic_quality(counts) > 0.85


def test_a_blank_answer_is_no_nuclei():
    blank = np.zeros((32, 32))
    assert labels_of_prediction(blank, blank, blank[None], MPP).max() == 0
    everything = labels_of_prediction(blank, blank + 1, np.stack([blank + 1] * 2), MPP)
    assert everything.max() == 0


def test_images_of_any_size_are_looked_at():
    network = Segmenter(PARAMS).eval()
    found = network.predict(np.zeros((3, 21, 34, 3), np.uint8), batch_size=2)
    assert found.nucleus.shape == found.depth.shape == (3, 21, 34)
    assert found.classes.shape == (3, 2, 21, 34)
    assert np.allclose(found.classes.sum(axis=1), 1, atol=1e-5)


def test_the_loss_is_lowest_at_the_truth():
    targets = torch.zeros(1, 2, 16, 16)
    targets[0, :, 4:9, 4:9] = torch.tensor([1.0, 2.0])[:, None, None]
    nucleus = (targets[:, 1:] > 0).float() * 20 - 10
    kind = torch.cat([-nucleus, nucleus], dim=1)
    right = torch.cat([nucleus, targets[:, :1] * 20 - 10, kind], dim=1)
    wrong_class = torch.cat([nucleus, targets[:, :1] * 20 - 10, -kind], dim=1)
    weights = torch.ones(2)
    assert segmentation_loss(right, targets, weights) < 0.02
    assert segmentation_loss(wrong_class, targets, weights) > 1
    assert segmentation_loss(-right, targets, weights) > 5
    # An image without nuclei has a loss, and it is finite.
    assert torch.isfinite(segmentation_loss(right, torch.zeros(1, 2, 16, 16), weights))


def test_class_weights_by_hand():
    weights = class_weights([100, 400, 0])
    assert weights[0] == pytest.approx(2 * float(weights[1])) and weights[2] == 0
    assert float(weights[0] * 100 + weights[1] * 400) == pytest.approx(500)


def test_files_hold_the_network(tmp_path):
    torch.manual_seed(0)
    network = Segmenter(PARAMS).eval()
    save_segmenter(network, tmp_path, {"rule": "x"})
    loaded = load_segmenter(tmp_path)
    image = he_picture(64, "mesa")[None]
    assert loaded.params == PARAMS
    assert np.array_equal(network.predict(image).nucleus, loaded.predict(image).nucleus)
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="not the folder of a segmentation network"):
        load_segmenter(tmp_path)


@pytest.mark.parametrize(("mpp", "side"), [(0.25, 32), (0.5, 64), (1.0, 128)])
def test_images_and_labels_change_resolution_together(mpp, side):
    rgb = he_picture(64, "mesa")
    labels = np.zeros((64, 64, 2), np.int32)
    labels[16:48, 16:48] = 5, 1
    small, fewer = at_mpp(rgb, labels, mpp, 0.5)
    assert small.shape == (side, side, 3) and fewer.shape == (side, side, 2)
    assert small.dtype == np.uint8 and set(np.unique(fewer[..., 0])) == {0, 5}
    assert (fewer[..., 0] > 0).mean() == pytest.approx(0.25, abs=0.02)
    assert abs(small.mean() - rgb.mean()) < 3
