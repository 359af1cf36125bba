"""PSNR and SSIM as the paper's published evaluation computes them, for numbers set beside its own.

Both compare the normalised image with the *un-normalised source*: they measure preservation, and
doing nothing wins. Images are area-resized to 256 px, values lie in [0, 1], and SSIM is
torchmetrics' with ``gaussian_kernel=False``: a flat window of 11 px around every px of the image,
which is mirrored at its rim, K1 = 0.01, K2 = 0.03, population covariance, mean of the channels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

SIDE_PX, WINDOW_PX = 256, 11
K1, K2 = 0.01, 0.03
# PSNR of equal images has no finite value; see `metrics.PSNR_OF_IDENTICAL_DB`.
PSNR_OF_IDENTICAL_DB = 130.0


def published_metrics(source: NDArray[np.uint8], result: NDArray[np.uint8]) -> dict[str, float]:
    """Return ``psnr_source_published`` (dB) and ``ssim_source_published`` of two RGB images.

    (H, W, 3) uint8 of one shape; sides above 256 px are averaged down, smaller ones stay as they
    are. SSIM is NaN for sides below 11 px.
    """
    if source.shape != result.shape or source.ndim != 3 or source.shape[2] != 3:
        raise ValueError(f"two (H, W, 3) images expected, got {source.shape} and {result.shape}")
    first, second = (area_resize(image.astype(np.float64) / 255.0) for image in (source, result))
    return {
        "psnr_source_published": _psnr(first, second),
        "ssim_source_published": _ssim(first, second),
    }


def area_resize(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (H, W, C) averaged to at most 256 px a side: torch's ``interpolate(mode="area")``."""
    for axis in (0, 1):
        side = image.shape[axis]
        if side > SIDE_PX:
            places = np.arange(SIDE_PX)
            starts = places * side // SIDE_PX
            stops = -(-(places + 1) * side // SIDE_PX)
            sums = np.cumsum(image, axis=axis)
            sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
            image = np.take(sums, stops, axis) - np.take(sums, starts, axis)
            shape = [1, 1, 1]
            shape[axis] = SIDE_PX
            image = image / (stops - starts).reshape(shape)
    return image


def _psnr(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    error = float(np.mean(np.square(first - second)))
    return PSNR_OF_IDENTICAL_DB if error == 0 else min(-10 * np.log10(error), PSNR_OF_IDENTICAL_DB)


def _ssim(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    if min(first.shape[:2]) < WINDOW_PX:
        return float("nan")
    means = [_window_means(image) for image in (first, second)]
    squares = [_window_means(image * image) for image in (first, second)]
    variances = [
        np.maximum(square - mean * mean, 0.0) for square, mean in zip(squares, means, strict=True)
    ]
    covariance = _window_means(first * second) - means[0] * means[1]
    similarity = (2 * means[0] * means[1] + K1**2) * (2 * covariance + K2**2)
    size = (means[0] ** 2 + means[1] ** 2 + K1**2) * (variances[0] + variances[1] + K2**2)
    return float((similarity / size).mean())


def _window_means(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of the window around every px, channel by channel."""
    return ndimage.uniform_filter(image, (WINDOW_PX, WINDOW_PX, 1), mode="mirror")
