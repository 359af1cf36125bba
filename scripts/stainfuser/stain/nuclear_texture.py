"""Whether the chromatin texture of nuclei survives a normaliser: pure functions on arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import rgb_to_od

# Chromatin clumps: finer than this is noise, coarser is the nucleus itself; standard deviations.
FINE_UM, COARSE_UM = 0.2, 1.0
# Left out along the rim, where a blurred image takes up the surround.
RIM_UM = 0.75
# Images with fewer px of nuclei say nothing.
MIN_NUCLEAR_PX = 64


def texture_agreement(
    result: NDArray[np.uint8], truth: NDArray[np.uint8], nuclei: NDArray[np.integer], mpp: float
) -> dict[str, float]:
    """Compare the fine texture inside nuclei of two (H, W, 3) uint8 RGB images of one tissue.

    Parameters
    ----------
    nuclei
        (H, W): 0, or the number of the nucleus a px belongs to.
    mpp
        Resolution, um per px.

    Returns
    -------
    dict with ``nuclear_contrast``: standard deviation of the texture relative to the truth's (1:
    kept, less: smoothed, more: sharpened or invented), and ``nuclear_texture``: Pearson correlation
    of the texture with the truth's. NaN where there are hardly any nuclei.
    """
    rim_px = max(round(RIM_UM / mpp), 1)
    inside = ndimage.binary_erosion(nuclei > 0, iterations=rim_px)
    if inside.sum() < MIN_NUCLEAR_PX:
        return {"nuclear_contrast": float("nan"), "nuclear_texture": float("nan")}
    own, true = (_texture(image, inside, mpp) for image in (result, truth))
    spread, wanted = float(own.std()), float(true.std())
    if min(spread, wanted) < 1e-6:
        return {"nuclear_contrast": 0.0 if wanted > 1e-6 else 1.0, "nuclear_texture": 0.0}
    correlation = float(np.corrcoef(own, true)[0, 1])
    return {"nuclear_contrast": spread / wanted, "nuclear_texture": correlation}


def _texture(rgb: NDArray[np.uint8], inside: NDArray[np.bool_], mpp: float) -> NDArray[np.float32]:
    """Return the band-passed mean optical density of nuclear px; the surround does not enter."""
    density = rgb_to_od(rgb).mean(axis=-1)
    weight = inside.astype(np.float32)
    fine, coarse = (_blur_within(density, weight, um / mpp) for um in (FINE_UM, COARSE_UM))
    return (fine - coarse)[inside]


def _blur_within(
    values: NDArray[np.float32], weight: NDArray[np.float32], sigma_px: float
) -> NDArray[np.float32]:
    """Blur over px of positive weight only (normalised convolution, Knutsson and Westin 1993)."""
    total = ndimage.gaussian_filter(weight, sigma_px)
    return ndimage.gaussian_filter(values * weight, sigma_px) / np.maximum(total, 1e-6)
