"""Where the tissue is: a mask on a thumbnail, by saturation against the slide's own background.

A saturation threshold holds for pale and for dark stains once the image is white-balanced to its
glass; plain grey or saturation thresholds call coloured glass, black edges or blank slides tissue.
Blur, folds and red pen cannot be told by colour and stay in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

REFERENCE_UM_PER_PX = 8.0
"""Resolution the constants below were chosen at; other resolutions scale the smoothing."""

IMAGE_REDUCTION = 4
"""Sides of a plain image per side of its mask."""

_SATURATION_RANGE = (8.0, 35.0)  # limits of the threshold, of 255: glass noise, pale eosin
_CLOSE_UM = 24.0
_MIN_AREA_UM2 = 6400.0  # about 80 um across: smaller pieces are dust, smaller holes vessels
_TISSUE_HUES = (210.0, 20.0)  # degrees, through 360: haematoxylin blue to eosin red
_NO_GLASS_THRESHOLD = 15.0  # upper limit where Otsu would divide tissue from tissue

RgbImage = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def tissue_mask(rgb: RgbImage, alpha: NDArray[np.uint8] | None = None, *, um_per_px: float) -> Mask:
    """Return (H, W) bool, true on tissue, of an (H, W, 3) uint8 RGB overview.

    `alpha` is (H, W) uint8; where it is below 128 the slide holds no pixels, which is never
    tissue. `um_per_px` is the resolution of `rgb`; about 8 is best.
    """
    valid = np.ones(rgb.shape[:2], bool) if alpha is None else alpha >= 128
    if not valid.any():
        return valid
    sigma = REFERENCE_UM_PER_PX / um_per_px
    smooth = ndimage.gaussian_filter(rgb.astype(np.float32), (sigma, sigma, 0))
    usable = valid & ~_black(smooth)
    background, is_glass = background_colour(rgb, usable)
    hue, saturation = hue_saturation(np.minimum(smooth * (255 / background), 255))
    usable &= ~_pen(smooth, um_per_px)
    if not usable.any():
        return usable
    limits = _SATURATION_RANGE if is_glass else (_SATURATION_RANGE[0], _NO_GLASS_THRESHOLD)
    threshold = np.clip(otsu_threshold(saturation[usable]), *limits)
    in_hues = (hue >= _TISSUE_HUES[0]) | (hue <= _TISSUE_HUES[1])
    # Brown (pigment, DAB) is tissue too, but pale yellow is the glass or its mounting medium.
    stained = (saturation > threshold) & (in_hues | (saturation > 2 * _SATURATION_RANGE[1]))
    return _tidy(stained & usable, um_per_px) & usable


def tissue_fraction(mask: Mask, alpha: NDArray[np.uint8] | None = None) -> float:
    """Return the share of tissue among the pixels the slide holds, 0 to 1."""
    valid = mask.size if alpha is None else int((alpha >= 128).sum())
    return float(mask.sum() / valid) if valid else 0.0


def image_tissue_mask(rgb: RgbImage, mpp: float | None) -> tuple[RgbImage, Mask]:
    """Return a plain image's overview, a quarter of its size, and the tissue mask of that.

    Images are small: at 8 um per px nothing would be left of a tile. `mpp` is um per px of `rgb`;
    None, which is usual, is taken as 0.5.
    """
    height, width = (max(1, side // IMAGE_REDUCTION) for side in rgb.shape[:2])
    used = rgb[: height * IMAGE_REDUCTION, : width * IMAGE_REDUCTION]
    blocks = used.reshape(height, -1, width, used.shape[1] // width, 3)
    overview = np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8)
    return overview, tissue_mask(overview, um_per_px=IMAGE_REDUCTION * (mpp or 0.5))


def background_colour(rgb: RgbImage, usable: Mask) -> tuple[NDArray[np.float32], bool]:
    """Return the colour of the glass, (3,) in 1 to 255, and whether there is glass at all.

    The glass is the median of the brightest pixels, if these look like glass: neutral, of a hue
    no stain has, or faintly tinted and flat. In a picture filled with tissue they do not (pale
    eosin would be balanced away); a grey of the same brightness is returned then.
    """
    pixels = rgb[usable].astype(np.float32)
    if not len(pixels):
        return np.full(3, 255, np.float32), False
    luminance = pixels.mean(axis=1)
    bright = luminance >= 0.93 * np.percentile(luminance, 99)
    colour = np.maximum(np.median(pixels[bright], axis=0), 1.0)
    hue, saturation = hue_saturation(colour)
    tissue_hued = hue >= _TISSUE_HUES[0] or hue <= _TISSUE_HUES[1]
    tinted = saturation < 30 and _is_flat(rgb, usable, colour)
    if saturation < 12 or not tissue_hued or tinted:
        return colour, True
    return np.full(3, colour.max(), np.float32), False


def hue_saturation(
    rgb: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return HSV hue in degrees [0, 360) and saturation in [0, 255] of (..., 3) RGB in [0, 255]."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    chroma = high - low
    safe = np.where(chroma == 0, 1, chroma)
    hue = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return hue * 60, 255 * chroma / np.maximum(high, 1e-6)


def otsu_threshold(values: NDArray[np.floating]) -> float:
    """Return the threshold in [0, 255] that separates two classes best (Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=256, range=(0, 256))
    levels = edges[:-1] + 0.5
    below = np.cumsum(counts).astype(np.float64)
    above = below[-1] - below
    sums = np.cumsum(counts * levels)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[np.nanargmax(between) + 1]) if np.isfinite(between).any() else 0.0


def draw_mask(rgb: RgbImage, mask: Mask) -> RgbImage:
    """Return the overview with tissue tinted and outlined and the rest faded, (H, W, 3) uint8.

    `mask` may have another size than `rgb`; it is brought to it.
    """
    height, width = rgb.shape[:2]
    zoom = (height / mask.shape[0], width / mask.shape[1])
    inside = ndimage.zoom(mask.astype(np.float32), zoom, order=1, grid_mode=True, mode="nearest")
    inside = inside >= 0.5
    tint = np.array([40, 140, 255], np.float32)
    picture = rgb.astype(np.float32)
    picture = np.where(inside[..., None], 0.86 * picture + 0.14 * tint, 0.7 * picture + 0.3 * 255)
    thickness = max(1, round(max(height, width) / 700))
    core = ndimage.binary_erosion(inside, iterations=thickness, border_value=1)
    picture[inside & ~core] = (0, 90, 230)
    return np.rint(picture).astype(np.uint8)


def _is_flat(rgb: RgbImage, usable: Mask, colour: NDArray[np.float32]) -> bool:
    """Return whether a fifth of the picture is of one colour without texture."""
    near = usable & (np.abs(rgb - colour).max(axis=-1) < 12)
    grey = rgb.mean(axis=-1)
    texture = np.abs(np.diff(grey, axis=1, append=grey[:, -1:]))
    flat = near & (ndimage.uniform_filter(texture, 5) < 1.5)
    return bool(flat.sum() >= 0.2 * usable.sum())


def _black(rgb: NDArray[np.float32]) -> Mask:
    """Ink, slide edges and scanner borders: dark without a colour."""
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    return (high < 90) & (high - low < 28)


def _pen(rgb: NDArray[np.float32], um_per_px: float) -> Mask:
    """Green and blue ink by hue, with its blurred rim; nuclei are violet beside them."""
    hue, saturation = hue_saturation(rgb)
    green = (hue > 70) & (hue < 200) & (saturation > 30)
    blue = (hue >= 195) & (hue < 238) & (saturation > 120)
    ink = _drop_small(green | blue, 400 / um_per_px**2)
    return ndimage.binary_dilation(ink, iterations=max(1, round(12 / um_per_px)))


def _tidy(mask: Mask, um_per_px: float) -> Mask:
    """Close gaps, fill small holes and drop small pieces."""
    radius = max(1, round(_CLOSE_UM / um_per_px))
    # Padding keeps the closing from eating tissue that touches the edge.
    padded = np.pad(mask, radius, mode="edge")
    grown = ndimage.distance_transform_edt(~padded) <= radius if padded.any() else padded
    closed = ndimage.distance_transform_edt(grown) > radius
    closed = closed[radius:-radius, radius:-radius]
    min_area = min(_MIN_AREA_UM2 / um_per_px**2, mask.size / 8)
    return ~_drop_small(~_drop_small(closed, min_area), min_area, keep_at_edge=True)


def _drop_small(mask: Mask, min_area_px: float, keep_at_edge: bool = False) -> Mask:
    """Drop pieces below an area; what touches the edge may be part of something larger."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    keep = np.bincount(labels.ravel()) >= min_area_px
    if keep_at_edge:
        for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            keep[edge] = True
    keep[0] = False
    return keep[labels]
