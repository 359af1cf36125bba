"""The look of a target that shows other tissue: measured, and not fooled by composition."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od
from stainfuser.stain.style_distance import (
    StyleReference,
    sliced_wasserstein,
    soft_classes,
    style_distance,
)

# Colours of background, nuclei and stroma in two laboratories.
HERE = np.array([(244, 243, 245), (90, 60, 140), (225, 150, 190)])
THERE = np.array([(236, 238, 240), (60, 70, 110), (205, 120, 140)])


def tissue(colours: np.ndarray, shares: tuple[float, float, float], seed: int = 0) -> np.ndarray:
    """Return (64, 64, 3) uint8: pixels of three classes in given shares, a little noisy."""
    random = np.random.default_rng(seed)
    classes = random.choice(3, size=(64, 64), p=shares)
    noisy = colours[classes] + random.normal(0, 4, (64, 64, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_equal_images_have_distance_zero():
    image = tissue(HERE, (0.3, 0.2, 0.5))
    assert style_distance(image, image) == 0.0
    assert sliced_wasserstein(image, image) == 0.0


def test_two_flat_images_are_as_far_apart_as_their_optical_densities():
    first = np.full((8, 8, 3), 127, dtype=np.uint8)  # OD ln 2
    second = np.full((8, 8, 3), 63, dtype=np.uint8)  # OD ln 4
    assert style_distance(first, second) == pytest.approx(np.sqrt(3) * np.log(2), abs=1e-3)
    # The mean over directions of |sum of a unit vector's components| ln 2 is sqrt(3)/2 ln 2.
    expected = np.sqrt(3) / 2 * np.log(2)
    assert sliced_wasserstein(first, second) == pytest.approx(expected, rel=0.2)


def test_classes_find_background_nuclei_and_stroma():
    pixels = HERE[np.repeat([0, 1, 2], [500, 60, 400])]
    noisy = pixels + np.random.default_rng(0).normal(0, 4, pixels.shape)
    classes = soft_classes(np.clip(noisy, 0, 255).astype(np.uint8))
    assert classes.dtype == np.float32 and np.allclose(classes.sum(axis=1), 1.0, atol=1e-5)
    expected = np.repeat([0, 1, 2], [500, 60, 400])
    assert np.mean(classes.argmax(axis=1) == expected) > 0.98


def test_the_truth_is_nearer_than_the_source_although_compositions_differ():
    source, truth = (tissue(look, (0.3, 0.1, 0.6), seed=1) for look in (HERE, THERE))
    target = tissue(THERE, (0.1, 0.6, 0.3), seed=2)
    to_truth = style_distance(truth, target, source)
    to_source = style_distance(source, target, source)
    assert to_truth < 0.15 * to_source


def test_painting_stroma_as_nuclei_is_found_out():
    source, truth = (tissue(look, (0.2, 0.1, 0.7), seed=1) for look in (HERE, THERE))
    target = tissue(THERE, (0.2, 0.6, 0.2), seed=2)
    # Give the result exactly the target's colours: half of the stroma turns into "nuclei".
    order_result, order_target = (np.argsort(image.sum(2).ravel()) for image in (source, target))
    cheat = np.empty((64 * 64, 3), dtype=np.uint8)
    cheat[order_result] = target.reshape(-1, 3)[order_target]
    cheat = cheat.reshape(64, 64, 3)
    assert sliced_wasserstein(cheat, target) < sliced_wasserstein(truth, target)
    assert style_distance(cheat, target, source) > 2 * style_distance(truth, target, source)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.filterwarnings("error")
def test_flat_images_give_finite_values_or_the_documented_nan(level):
    flat = np.full((16, 16, 3), level, dtype=np.uint8)
    image = tissue(HERE, (0.3, 0.2, 0.5))
    assert np.isfinite(sliced_wasserstein(flat, image))
    assert np.isfinite(style_distance(flat, image))
    assert np.isfinite(style_distance(image, flat))
    dense = tissue(HERE, (0.0, 0.5, 0.5))
    assert np.isnan(style_distance(flat, dense)) == (level == 255)


def test_large_images_are_sampled_evenly():
    image = tissue(HERE, (0.3, 0.2, 0.5))
    large = np.tile(image, (8, 8, 1))
    assert style_distance(large, image) < 0.02


def test_optical_density_round_trip_keeps_the_distance_zero():
    image = tissue(HERE, (0.3, 0.2, 0.5))
    assert style_distance(od_to_rgb(rgb_to_od(image)), image) == 0.0


def test_wrong_arrays_are_refused():
    image = tissue(HERE, (0.3, 0.2, 0.5))
    with pytest.raises(ValueError, match="uint8 RGB"):
        style_distance(image.astype(float), image)
    with pytest.raises(ValueError, match="uint8 RGB"):
        sliced_wasserstein(image[..., 0], image)


def test_the_distance_is_the_mean_over_the_classes_that_both_show():
    source, target = tissue(HERE, (0.3, 0.2, 0.5)), tissue(THERE, (0.0, 0.4, 0.6), seed=2)
    parts = StyleReference(target).class_distances(source)
    assert list(parts) == ["background", "nuclei", "stroma"]
    assert np.isnan(parts["background"])
    expected = np.mean([parts["nuclei"], parts["stroma"]])
    assert style_distance(source, target) == pytest.approx(expected)
