"""Texture inside nuclei: kept by a recolouring, lost by a blur, no matter what lies around."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from stainfuser.stain.nuclear_texture import texture_agreement
from stainfuser.stain.optical_density import od_to_rgb


@pytest.fixture(scope="module")
def nuclei():
    """Return (H, W, 3) uint8 RGB and labels of two square nuclei with clumps of chromatin."""
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 64), np.uint16)
    labels[8:28, 8:28], labels[36:56, 30:54] = 1, 2
    clumps = ndimage.gaussian_filter(rng.normal(size=labels.shape), 1.5)
    density = np.where(labels > 0, 0.8 + 0.15 * clumps / clumps.std(), 0.2)
    return od_to_rgb(density[..., None] * np.array([1.2, 1.0, 0.6])), labels


def test_an_image_agrees_with_itself(nuclei):
    found = texture_agreement(nuclei[0], nuclei[0], nuclei[1], 0.25)
    assert found == pytest.approx({"nuclear_contrast": 1.0, "nuclear_texture": 1.0})


def test_half_the_density_is_half_the_contrast_of_the_same_texture(nuclei):
    rgb, labels = nuclei
    paler = np.rint(256 * ((rgb + 1.0) / 256) ** 0.5 - 1).astype(np.uint8)
    found = texture_agreement(paler, rgb, labels, 0.25)
    assert found["nuclear_contrast"] == pytest.approx(0.5, abs=0.03)
    assert found["nuclear_texture"] > 0.99


def test_a_blur_takes_contrast_and_noise_takes_agreement(nuclei):
    rgb, labels = nuclei
    blurred = ndimage.gaussian_filter(rgb, (1.5, 1.5, 0))
    noisy = np.clip(rgb + np.random.default_rng(1).normal(0, 25, rgb.shape), 0, 255)
    assert texture_agreement(blurred, rgb, labels, 0.25)["nuclear_contrast"] < 0.85
    assert texture_agreement(noisy.astype(np.uint8), rgb, labels, 0.25)["nuclear_texture"] < 0.9


def test_what_lies_around_nuclei_does_not_enter(nuclei):
    rgb, labels = nuclei
    other = np.where(labels[..., None] > 0, rgb, 30).astype(np.uint8)
    found = texture_agreement(other, rgb, labels, 0.25)
    assert found == pytest.approx({"nuclear_contrast": 1.0, "nuclear_texture": 1.0}, abs=1e-4)


def test_without_nuclei_there_is_no_number_and_flat_ones_have_no_texture(nuclei):
    rgb, labels = nuclei
    assert np.isnan(texture_agreement(rgb, rgb, 0 * labels, 0.25)["nuclear_texture"])
    flat = np.full_like(rgb, 90)
    found = texture_agreement(flat, rgb, labels, 0.25)
    assert found == {"nuclear_contrast": 0.0, "nuclear_texture": 0.0}
