"""PSNR and SSIM as published: pinned to torchmetrics, and worked by hand where that is possible."""

from __future__ import annotations

import numpy as np
import pytest

from slide_files import tissue_picture
from stainfuser.stain.published_metrics import area_resize, published_metrics


def noisy_pair(side_px: int) -> list[np.ndarray]:
    """Return tissue, and the same tissue darker and with noise."""
    source = tissue_picture(side_px, seed=5)
    noise = np.random.default_rng(0).normal(0, 12, source.shape)
    return [source, np.clip(0.8 * source + noise, 0, 255).astype(np.uint8)]


@pytest.mark.parametrize("side_px", [64, 256, 300, 512])
def test_they_are_those_of_torchmetrics(side_px):
    import torch
    from torch.nn.functional import interpolate
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    source, result = noisy_pair(side_px)
    tensors = [
        torch.from_numpy(image).permute(2, 0, 1)[None].double() / 255 for image in (source, result)
    ]
    if side_px > 256:
        tensors = [interpolate(tensor, (256, 256), mode="area") for tensor in tensors]
    found = published_metrics(source, result)
    ssim = structural_similarity_index_measure(
        tensors[1], tensors[0], gaussian_kernel=False, data_range=1.0
    )
    psnr = peak_signal_noise_ratio(tensors[1], tensors[0], data_range=1.0)
    assert found["ssim_source_published"] == pytest.approx(float(ssim), abs=1e-6)
    assert found["psnr_source_published"] == pytest.approx(float(psnr), abs=1e-4)


def test_by_hand():
    black, grey = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 51, np.uint8)
    found = published_metrics(black, grey)
    # A mean square error of 0.2^2; windows without variance leave the term of the means.
    assert found["psnr_source_published"] == pytest.approx(-20 * np.log10(0.2))
    assert found["ssim_source_published"] == pytest.approx(1e-4 / (0.04 + 1e-4))
    assert published_metrics(grey, grey)["ssim_source_published"] == pytest.approx(1.0)
    assert published_metrics(grey, grey)["psnr_source_published"] == 130.0


def test_areas_are_averaged():
    image = np.zeros((512, 256, 1))
    image[0::2] = 1.0
    assert area_resize(image).shape == (256, 256, 1) and np.allclose(area_resize(image), 0.5)


def test_bad_input_is_refused_and_a_tile_without_a_window_has_no_ssim():
    small = np.zeros((8, 8, 3), np.uint8)
    assert np.isnan(published_metrics(small, small)["ssim_source_published"])
    with pytest.raises(ValueError, match="two \\(H, W, 3\\) images"):
        published_metrics(small, small[:4])
