"""Where and how strongly a slide is changed: tissue fully, glass not at all, no visible edge.

Two weights multiply: one of the place (the tissue mask, grown and smoothed) and one of the colour
(how much darker than the background a pixel is). All are functions of slide coordinates or of a
pixel's own colour, so that results do not depend on the blocks a slide is worked on in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.tissue import background_colour

# Optical density over the background between which a pixel turns from glass to tissue. The noise
# of a scanner is about 0.01, the palest eosin about 0.15.
GLASS_OD, TISSUE_OD = 0.03, 0.12
# Density of red over that of green between which a pixel turns from tissue to green or blue ink.
# Haematoxylin and eosin take more green than red: in 26 of 27 images from several laboratories,
# immunohistochemistry among them, 99 % of the stained pixels lie below 1.05; green ink is over 1.6.
TISSUE_RED_TO_GREEN, INK_RED_TO_GREEN = 1.2, 1.45
# Keeps the ratio of pale pixels near 1, and that of nearly black ones, which are noise, at 1.
PALE_OD, BLACK_OD = 0.05, 2.2
# The mask is grown by this much and then smoothed: the change has faded before the mask ends.
GROW_UM, SMOOTH_UM = 40.0, 16.0
# Glass next to tissue, from which the background colour is taken.
RIM_UM = 200.0
LEAST_GLASS_PX = 50
LEAST_SCANNED_FRACTION = 0.2


def glass_to_tissue(relative_od: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a weight in [0, 1] per pixel: 0 for the background's colour or lighter, 1 for tissue.

    `relative_od` is (..., 3), relative to the background; the densest channel decides.
    """
    return smoothstep(relative_od.max(axis=-1), GLASS_OD, TISSUE_OD)


def changeable(relative_od: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a weight in [0, 1] per pixel: 1 for tissue, 0 for glass and for ink of other hues.

    `relative_od` is (..., 3), relative to the background. Green and blue ink lies on tissue in
    places that no mask can cut out; red and black ink cannot be told by its colour.
    """
    red, green = (np.clip(relative_od[..., i], 0.0, BLACK_OD) for i in (0, 1))
    ink = smoothstep(red / (green + PALE_OD), TISSUE_RED_TO_GREEN, INK_RED_TO_GREEN)
    return glass_to_tissue(relative_od) * (1.0 - ink)


def smoothstep(value: NDArray[np.floating], low: float, high: float) -> NDArray[np.floating]:
    """Return 0 below `low`, 1 above `high`, and a smooth cubic between."""
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def soften_mask(mask: NDArray[np.bool_], um_per_px: float) -> NDArray[np.uint8]:
    """Return the weight of the place, (H, W) uint8 in [0, 255], from a (H, W) bool tissue mask."""
    from scipy import ndimage

    if not mask.any():
        return np.zeros(mask.shape, np.uint8)
    grown = ndimage.distance_transform_edt(~mask) * um_per_px <= GROW_UM
    smooth = ndimage.gaussian_filter(grown.astype(np.float32), SMOOTH_UM / um_per_px, truncate=3)
    return np.rint(255.0 * np.clip(smooth, 0.0, 1.0)).astype(np.uint8)


def glass_colour(
    thumbnail: NDArray[np.uint8], mask: NDArray[np.bool_], um_per_px: float
) -> NDArray[np.float64]:
    """Return the colour of the glass near the tissue, (3,) RGB in [0, 255].

    Parameters
    ----------
    thumbnail
        (H, W, 3) uint8 RGB.
    mask
        (H, W) bool, true on tissue.
    um_per_px
        Resolution of both.

    The lighter half of the pixels round the tissue is taken, so that ink and dirt do not count, and
    without pure white, with which scanners fill what they did not scan, if other glass is left; a
    picture without glass has the colour `tissue.background_colour` finds in all of it.
    """
    from scipy import ndimage

    away_um = (
        ndimage.distance_transform_edt(~mask) * um_per_px
        if mask.any()
        else np.full(mask.shape, RIM_UM)
    )
    for is_glass in ((away_um > GROW_UM) & (away_um < RIM_UM), ~mask):
        pixels = thumbnail[is_glass]
        scanned = pixels[pixels.min(axis=1) < 255]
        if len(scanned) >= LEAST_SCANNED_FRACTION * len(pixels):
            pixels = scanned
        if len(pixels) >= LEAST_GLASS_PX:
            lightness = pixels.min(axis=1)
            white = np.median(pixels[lightness >= np.median(lightness)], axis=0)
            if white.min() > 150:
                return white.astype(np.float64)
    return background_colour(thumbnail, np.ones(mask.shape, bool))[0].astype(np.float64)


def interpolate(
    plane: NDArray,
    rows: NDArray[np.float64],
    columns: NDArray[np.float64],
    origin_px: tuple[int, int] = (0, 0),
) -> NDArray[np.float32]:
    """Sample a plane bilinearly at the crossings of fractional `rows` and `columns`.

    `plane` is (H, W) or (H, W, C), and a cut-out whose first row and column are `origin_px` of the
    whole; positions count in the whole, and outside take the nearest pixel. Every value depends on
    its own position only, to the last bit.
    """
    return _along(_along(plane, rows, 0, origin_px[0]), columns, 1, origin_px[1])


def _along(
    plane: NDArray, positions: NDArray[np.float64], axis: int, start_px: int
) -> NDArray[np.float32]:
    whole = np.floor(positions)
    shape = [1] * plane.ndim
    shape[axis] = len(positions)
    fraction = (positions - whole).astype(np.float32).reshape(shape)
    low = whole.astype(np.intp) - start_px
    first = plane.take(low, axis, mode="clip").astype(np.float32, copy=False)
    second = plane.take(low + 1, axis, mode="clip").astype(np.float32, copy=False)
    return first + fraction * (second - first)


def px_centres(start_px: int, count_px: int, scale: float) -> NDArray[np.float64]:
    """Return where the centres of px start_px… lie on a plane whose px are `scale` times larger."""
    return (np.arange(start_px, start_px + count_px) + 0.5) / scale - 0.5


def feather(position_px: NDArray[np.integer], side_px: int, overlap_px: int) -> NDArray[np.float32]:
    """Return the weight of a tile along one axis: 1 inside, falling to 0 through the overlap.

    Where two tiles overlap by `overlap_px` their weights add up to 1 (sin^2 + cos^2).
    `position_px` counts px from the tile's start.
    """
    if overlap_px == 0:
        return ((position_px >= 0) & (position_px < side_px)).astype(np.float32)
    rise = np.clip((position_px + 0.5) / overlap_px, 0.0, 1.0)
    fall = np.clip((side_px - position_px - 0.5) / overlap_px, 0.0, 1.0)
    return (np.sin(0.5 * np.pi * np.minimum(rise, fall)) ** 2).astype(np.float32)
