"""Shifts between two pictures of the same tissue, as two scanners take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import rgb_to_od

# Shifts are found to this part of a px.
UPSAMPLING = 10
# What two scanners share is structure of a few px, not their own shading and noise.
FINE_PX, COARSE_PX = 1.0, 16.0


class RegisteredPair(NamedTuple):
    """Two images cut to the tissue both show, and by how much the second was moved.

    `shift_px` is (dy, dx): content at (y, x) of the moving image lies at (y + dy, x + dx) of the
    fixed one.
    """

    fixed: NDArray[np.uint8]
    moved: NDArray[np.uint8]
    shift_px: tuple[float, float]


def register_shift(fixed: NDArray[np.uint8], moving: NDArray[np.uint8]) -> tuple[float, float]:
    """Return (dy, dx), px, by which `moving` must be moved to lie on `fixed`.

    Phase correlation (Guizar-Sicairos et al. 2008, scikit-image) of the band-passed mean optical
    density of two (H, W, 3) uint8 RGB images of one shape, to a tenth of a px. Stain hardly
    matters: both dyes darken. Two blank images give (0, 0).
    """
    from skimage.registration import phase_cross_correlation

    if fixed.shape != moving.shape or fixed.ndim != 3 or fixed.shape[2] != 3:
        raise ValueError(f"two (H, W, 3) images expected, got {fixed.shape} and {moving.shape}")
    bands = [_structure(image) for image in (fixed, moving)]
    if any(float(np.abs(band).max()) < 1e-6 for band in bands):
        return 0.0, 0.0
    shift, _, _ = phase_cross_correlation(*bands, upsample_factor=UPSAMPLING, normalization=None)
    return float(shift[0]), float(shift[1])


def register_pair(fixed: NDArray[np.uint8], moving: NDArray[np.uint8]) -> RegisteredPair:
    """Move `moving` onto `fixed` (linear interpolation) and cut both to what they share.

    Raises `ValueError` where they share nothing.
    """
    shift = register_shift(fixed, moving)
    window = tuple(_shared(side, by) for side, by in zip(fixed.shape[:2], shift, strict=True))
    if all(by == int(by) for by in shift):
        moved = np.roll(moving, (int(shift[0]), int(shift[1])), axis=(0, 1))
    else:
        smooth = ndimage.shift(moving.astype(np.float32), (*shift, 0.0), order=1, mode="nearest")
        moved = np.clip(np.rint(smooth), 0, 255).astype(np.uint8)
    return RegisteredPair(
        np.ascontiguousarray(fixed[window]), np.ascontiguousarray(moved[window]), shift
    )


def _shared(side_px: int, by_px: float) -> slice:
    """Return the rows (or columns) that an image and its shifted copy both have."""
    start, stop = max(0, int(np.ceil(by_px))), side_px + min(0, int(np.floor(by_px)))
    if start >= stop:
        raise ValueError(f"images shifted by {by_px} px of {side_px} px share no tissue")
    return slice(start, stop)


def _structure(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the band-passed mean optical density, faded out towards the rim, (H, W) float32."""
    density = rgb_to_od(rgb).mean(axis=2)
    band = ndimage.gaussian_filter(density, FINE_PX) - ndimage.gaussian_filter(density, COARSE_PX)
    return band * np.outer(*(np.hanning(side + 2)[1:-1] for side in band.shape))
