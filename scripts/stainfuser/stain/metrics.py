"""How alike two images are: in colour, in signal and in structure.

Every function takes (H, W, 3) uint8 RGB arrays of equal shape and returns a finite Python float
unless its docstring says otherwise; arrays of other shapes or types raise `ValueError`. How near
an image comes to the *look* of a target that shows other tissue is in `style_distance`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.style_distance import sliced_wasserstein, style_distance

__all__ = [
    "PSNR_OF_IDENTICAL_DB",
    "SSIM_WINDOW_PX",
    "ciede2000",
    "ciede2000_map",
    "gradient_correlation",
    "psnr",
    "sliced_wasserstein",
    "ssim",
    "style_distance",
]

# Equal images have no finite PSNR; a finite value keeps means and intervals defined. One grey
# level wrong in one channel of a 4096 x 4096 image is 125 dB, so nothing real is cut off.
PSNR_OF_IDENTICAL_DB = 130.0
# Side of the Gaussian window of Wang et al. (sigma 1.5, cut at 3.5 sigma).
SSIM_WINDOW_PX = 11
# Rec. 709 luminance of gamma-coded RGB.
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
# A gradient field below this root mean square, grey levels per px, counts as flat.
FLAT_GRADIENT = 1e-6


def ciede2000_map(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the CIEDE2000 colour difference of every pixel, (H, W) float32 in [0, about 120].

    sRGB, D65, k_L = k_C = k_H = 1 (Sharma et al. 2005, scikit-image). About 1 is just visible.
    """
    from skimage.color import deltaE_ciede2000, rgb2lab

    _check_pair(first, second)
    labs = [rgb2lab(image.astype(np.float32) / np.float32(255.0)) for image in (first, second)]
    return deltaE_ciede2000(*labs).astype(np.float32)


def ciede2000(
    first: NDArray[np.uint8], second: NDArray[np.uint8], mask: NDArray[np.bool_] | None = None
) -> float:
    """Return the mean CIEDE2000 over all pixels, or over those of a (H, W) bool `mask`.

    An empty mask gives NaN: there is nothing to average.
    """
    difference = ciede2000_map(first, second)
    chosen = difference if mask is None else difference[mask]
    return float(chosen.mean(dtype=np.float64)) if chosen.size else float("nan")


def psnr(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the peak signal-to-noise ratio, dB, peak 255, over all pixels and channels.

    Equal images give `PSNR_OF_IDENTICAL_DB`, which is also the largest value returned.
    """
    _check_pair(first, second)
    error = first.astype(np.float32) - second.astype(np.float32)
    mean_square = float(np.mean(np.square(error), dtype=np.float64))
    if mean_square == 0.0:
        return PSNR_OF_IDENTICAL_DB
    return min(10.0 * float(np.log10(255.0**2 / mean_square)), PSNR_OF_IDENTICAL_DB)


def ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the structural similarity, at most 1, mean of the three RGB channels.

    Wang et al. 2004 as in scikit-image: Gaussian window of sigma 1.5 (11 px), population
    covariance, K1 = 0.01, K2 = 0.03, data range 255. Images smaller than 11 px give NaN.
    """
    from skimage.metrics import structural_similarity

    _check_pair(first, second)
    if min(first.shape[:2]) < SSIM_WINDOW_PX:
        return float("nan")
    value = structural_similarity(
        first.astype(np.float32),
        second.astype(np.float32),
        data_range=255.0,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def gradient_correlation(source: NDArray[np.uint8], result: NDArray[np.uint8]) -> float:
    """Return the Pearson correlation of the luminance gradients of two images, in [-1, 1].

    Both components of the gradient (central differences, along y and x) enter with their sign:
    a smooth change of colour and contrast leaves it near 1, invented, lost or inverted structure
    does not. Two flat images agree (1); a flat and a structured one do not (0).
    """
    _check_pair(source, result)
    gradients = [_luminance_gradients(image) for image in (source, result)]
    is_flat = [float(np.sqrt(np.mean(np.square(field)))) < FLAT_GRADIENT for field in gradients]
    if any(is_flat):
        return 1.0 if all(is_flat) else 0.0
    return float(np.clip(np.corrcoef(*gradients)[0, 1], -1.0, 1.0))


def _luminance_gradients(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return both gradient components of the luminance as one vector; a side of 1 px has none."""
    luminance = image.astype(np.float32) @ LUMINANCE
    along = [axis for axis in (0, 1) if luminance.shape[axis] > 1]
    fields = [np.gradient(luminance, axis=axis).ravel() for axis in along]
    return np.concatenate(fields).astype(np.float64) if fields else np.zeros(1)


def _check_pair(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> None:
    for image in (first, second):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"expected a (H, W, 3) uint8 RGB array, got {image.shape} {image.dtype}"
            )
    if first.shape != second.shape:
        raise ValueError(f"images of equal shape expected, got {first.shape} and {second.shape}")
