"""Detail in a result that no local colour map of its source explains.

A stain normaliser may change colours, differently in different places, but it has no business with
structure. Within every window the result's optical density is regressed on the source's colour
(quadratic) and on the source out of focus, so that a softer or sharper picture of the same tissue
is explained, too; what is left has no counterpart in the source: nuclei painted in, texture of a
decoder, the seam of two tiles. SSIM against the source mixes this with the intended change of
colour and contrast.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import quadratic_features, rgb_to_od

# Side of the boxes that share one colour map, px, and of the windows the map is fitted to, in
# boxes: 40 px, 1,600 observations for 16 coefficients, so that chance explains 1 %.
BOX_PX, WINDOW_BOXES = 8, 5
# What is finer than this is detail (standard deviation of a Gaussian), px.
DETAIL_PX = 4.0
# Blurs of the source that a change of focus is made of, px.
FOCUS_PX = (1.0, 2.0)
# Detail weaker than this, OD, is the rounding to 8 bit and the noise of a scanner.
NOISE_OD = 0.01
# Ridge of the regression, relative to the mean square of the features.
RIDGE = 1e-6


def invented_structure(source: NDArray[np.uint8], result: NDArray[np.uint8]) -> float:
    """Return the share of the result's detail that its source does not explain, in [0, 1].

    Energy of the fine part (high pass) of the residual over that of the result, both (H, W, 3)
    uint8 RGB images of one shape of at least 40 px a side, in optical density. 0: each colour is
    a smooth function of the source's colour, of its focus and of the place. Noise or JPEG that
    only one of the two has counts, so that a truth scanned anew is not at 0: compare with its
    value. Structure that is *lost* is explained (by a constant, or by blur); swap the arguments to
    measure it. NaN for images smaller than a window.
    """
    if source.shape != result.shape or source.ndim != 3 or source.shape[2] != 3:
        raise ValueError(f"two (H, W, 3) images expected, got {source.shape} and {result.shape}")
    if source.dtype != np.uint8 or result.dtype != np.uint8:
        raise ValueError(f"uint8 images expected, got {source.dtype} and {result.dtype}")
    rows, columns = (side - side % BOX_PX for side in source.shape[:2])
    if min(rows, columns) < BOX_PX * WINDOW_BOXES:
        return float("nan")
    before, after = (rgb_to_od(image[:rows, :columns]) for image in (source, result))
    residual = unexplained(before, after)
    return min(1.0, _detail_energy(residual) / (_detail_energy(after) + 3 * NOISE_OD**2))


def unexplained(
    source_od: NDArray[np.float32], result_od: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what local maps of the source's optical density leave of the result's.

    Both (H, W, 3) float32, sides multiples of 8 px; so is the residual.
    """
    blurred = [ndimage.gaussian_filter(source_od, (sigma, sigma, 0)) for sigma in FOCUS_PX]
    features = np.concatenate([quadratic_features(source_od), *blurred], axis=2)
    features = _boxes(features.astype(np.float32))
    wanted = _boxes(result_od)
    transposed = features.transpose(0, 1, 3, 2)
    gram = _window_sums((transposed @ features).astype(np.float64))
    moments = _window_sums((transposed @ wanted).astype(np.float64))
    size = np.einsum("...ii->...", gram)[..., None, None] / gram.shape[-1]
    maps = np.linalg.solve(gram + RIDGE * size * np.eye(gram.shape[-1]), moments)
    return _unboxed(wanted - features @ maps.astype(np.float32))


def _boxes(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W, C) → (H / 8, W / 8, 64, C)."""
    height, width, channels = image.shape
    cut = image.reshape(height // BOX_PX, BOX_PX, width // BOX_PX, BOX_PX, channels)
    return cut.transpose(0, 2, 1, 3, 4).reshape(height // BOX_PX, width // BOX_PX, -1, channels)


def _unboxed(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w, 64, C) → (8 h, 8 w, C)."""
    rows, columns, _, channels = boxes.shape
    cut = boxes.reshape(rows, columns, BOX_PX, BOX_PX, channels).transpose(0, 2, 1, 3, 4)
    return cut.reshape(rows * BOX_PX, columns * BOX_PX, channels)


def _window_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum (h, w, ...) over windows of 5 x 5 boxes; at the rim the window is moved inside."""
    for axis in (0, 1):
        sums = np.cumsum(values, axis=axis)
        sums = np.concatenate([np.zeros_like(np.take(sums, [0], axis)), sums], axis=axis)
        count = values.shape[axis]
        start = np.clip(np.arange(count) - WINDOW_BOXES // 2, 0, count - WINDOW_BOXES)
        values = np.take(sums, start + WINDOW_BOXES, axis) - np.take(sums, start, axis)
    return values


def _detail_energy(od: NDArray[np.float32]) -> float:
    """Return the mean square of the fine part of a (H, W, 3) image, summed over channels."""
    detail = od - ndimage.gaussian_filter(od, (DETAIL_PX, DETAIL_PX, 0), mode="nearest")
    return float(np.square(detail, dtype=np.float64).sum(axis=2).mean())
