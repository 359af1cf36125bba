"""What a tile shows, whatever its stain: nuclear density, lumens, texture, direction of fibres.

Optical densities are first put on the scale of their slide (its glass, its tissue quantiles, the
red absorption that parts its nuclei from the rest), so that one tissue from two laboratories has
nearly the same features and clusters mean tissue.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.style_distance import soft_classes

TISSUE_FEATURES = (
    "nuclear_fraction",
    "background_fraction",
    "lumen_fraction",
    "nuclear_size_um",
    "nuclear_clustering",
    "texture_1um",
    "texture_2um",
    "texture_4um",
    "texture_8um",
    "edge_anisotropy",
    "fibre_alignment",
)
# Tiles finer than this are averaged down first; nuclei are 5 to 15 um.
ANALYSIS_MPP = 0.5
# Mean optical density over the glass below which a pixel is background: this part of the median
# over what is denser than `NOISE_OD`, at most `MAX_BACKGROUND_OD`; pale slides have pale stroma.
BACKGROUND_PART, NOISE_OD, MAX_BACKGROUND_OD = 0.4, 0.06, 0.12
# Features wider than a few um are measured on boxes of this many pixels.
COARSE = 4
# Mean red optical densities of nuclei and the rest closer than this: no nuclei in view.
MIN_NUCLEAR_CONTRAST_OD = 0.1
# Mean optical density over the glass above which a stain can be told from ink.
FOREIGN_OD = 0.2
# Pixels per tile that a slide's scale is measured on.
PIXELS_PER_TILE = 1024


@dataclass(frozen=True)
class SlideScale:
    """How one slide is stained, as far as tissue features must not see it.

    Attributes
    ----------
    white
        (3,) optical density of the glass.
    background_od
        Mean optical density over the glass below which a pixel is background.
    low, high
        5th and 95th percentile of mean optical density over tissue.
    nuclear_red
        Red optical density that parts nuclei from other tissue.
    red_softness
        Width of that division, optical density.
    """

    white: NDArray[np.float32]
    background_od: float
    low: float
    high: float
    nuclear_red: float
    red_softness: float


def measure_slide_scale(tiles: NDArray[np.uint8]) -> SlideScale:
    """Measure the scale of a slide on (N, S, S, 3) uint8 tiles of it, N >= 1."""
    step = max(1, int(np.sqrt(tiles.shape[1] * tiles.shape[2] / PIXELS_PER_TILE)))
    pixels = tiles[:, step // 2 :: step, step // 2 :: step].reshape(-1, 3)
    od = rgb_to_od(pixels)
    white = np.minimum(np.percentile(od, 1.0, axis=0), 0.08).astype(np.float32)
    density = (od - white).mean(axis=1)
    own = ~_is_foreign(od - white)
    pixels, od, density = pixels[own], od[own], density[own]
    background_od = _background_od(density)
    tissue = density > background_od
    if tissue.sum() < 32:
        return SlideScale(white, background_od, 0.1, 1.0, 0.5, 0.1)
    low, high = np.percentile(density[tissue], [5, 95])
    red = od[tissue, 0]
    return SlideScale(
        white=white,
        background_od=background_od,
        low=float(low),
        high=float(max(high, low + 0.05)),
        nuclear_red=_nuclear_threshold(red, soft_classes(pixels)[tissue]),
        red_softness=max(0.15 * float(red.std()), 0.01),
    )


def _nuclear_threshold(red: NDArray[np.float32], classes: NDArray[np.float32]) -> float:
    """Return the red optical density above which tissue is nuclear."""
    mass = classes.sum(axis=0) + 1e-6
    nuclei, other = (float(classes[:, index] @ red / mass[index]) for index in (1, 2))
    if nuclei - other < MIN_NUCLEAR_CONTRAST_OD:
        return max(float(red.max()), nuclei + MIN_NUCLEAR_CONTRAST_OD)
    share = float(np.clip(mass[1] / mass[1:].sum(), 0.005, 0.9))
    return float(np.quantile(red, 1.0 - share))


def tissue_features(tile: NDArray[np.uint8], scale: SlideScale, mpp: float) -> NDArray[np.float64]:
    """Return the features of a (S, S, 3) uint8 RGB tile, (len(TISSUE_FEATURES),) float64.

    Fractions in [0, 1]; sizes in um; textures relative to the slide's tissue contrast. `mpp` is
    the tile's resolution, um per px.
    """
    factor = max(1, round(ANALYSIS_MPP / mpp))
    od = _box_means(rgb_to_od(tile), factor)
    um_per_px = mpp * factor
    density = (od - scale.white).mean(axis=-1)
    background = density < scale.background_od
    nuclear = _nuclear_map(od[..., 0], background, scale)
    grey = np.clip((density - scale.low) / (scale.high - scale.low), -0.5, 1.5)
    tissue_px = max(float((~background).sum()), 1.0)
    values = [
        float(nuclear.sum()) / tissue_px,
        float(background.mean()),
        _lumen_fraction(background, um_per_px),
        _nuclear_size(nuclear, um_per_px),
        _clustering(nuclear, um_per_px),
        *_textures(grey, um_per_px),
        *_directions(grey, um_per_px),
    ]
    return np.array(values, np.float64)


def foreign_fraction(tile: NDArray[np.uint8], scale: SlideScale) -> float:
    """Return the fraction of a tile's tissue that no H&E stains so: pen, ink, dirt; in [0, 1].

    Of pixels denser than `FOREIGN_OD`, for paler ones are too grey to tell.
    """
    od = (rgb_to_od(tile[::2, ::2]) - scale.white).reshape(-1, 3)
    dense = od.mean(axis=1) > FOREIGN_OD
    return float(_is_foreign(od)[dense].mean()) if dense.sum() >= 50 else 0.0


def _is_foreign(od: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which of (N, 3) optical densities over the glass are dense and not H&E, (N,) bool.

    Haematoxylin and eosin absorb green more than the weaker of red and blue, and haematoxylin
    absorbs red hardly more than green. Grey and green marks do not; nor does blue ink.
    """
    mean = od.mean(axis=1)
    red, green, blue = od.T
    is_grey = green - np.minimum(red, blue) < 0.12 * mean
    return (mean > FOREIGN_OD) & (is_grey | (red > 1.4 * green))


def _background_od(density: NDArray[np.float32]) -> float:
    stained = density[density > NOISE_OD]
    if not len(stained):
        return MAX_BACKGROUND_OD
    return min(max(BACKGROUND_PART * float(np.median(stained)), NOISE_OD), MAX_BACKGROUND_OD)


def _box_means(pixels: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """Average (H, W, ...) over boxes of factor x factor px; an incomplete rim is left out."""
    if factor == 1 or min(pixels.shape[:2]) < factor:
        return pixels
    rows, columns = pixels.shape[0] // factor, pixels.shape[1] // factor
    boxes = pixels[: rows * factor, : columns * factor]
    boxes = boxes.reshape(rows, factor, columns, factor, *pixels.shape[2:])
    return boxes.mean(axis=(1, 3), dtype=np.float32)


def _blur(pixels: NDArray[np.float32], sigma_px: float) -> NDArray[np.float32]:
    return ndimage.gaussian_filter(pixels, sigma_px, truncate=3.0)


def _lumen_fraction(background: NDArray[np.bool_], um_per_px: float) -> float:
    """Return the fraction of the tile in openings wider than about 12 um."""
    coarse = _box_means(background.astype(np.float32), COARSE)
    return float((_blur(coarse, 6.0 / um_per_px / COARSE) > 0.6).mean())


def _nuclear_map(
    red: NDArray[np.float32], background: NDArray[np.bool_], scale: SlideScale
) -> NDArray[np.float32]:
    """Return how nuclear each pixel is, (H, W) in [0, 1]."""
    sigmas = np.clip((red - scale.nuclear_red) / scale.red_softness, -30, 30)
    return np.where(background, 0.0, 1.0 / (1.0 + np.exp(-sigmas))).astype(np.float32)


def _nuclear_size(nuclear: NDArray[np.float32], um_per_px: float) -> float:
    """Return area over outline of the nuclei, um, in [0, 20]; 0 without nuclei."""
    smooth = _blur(nuclear, 0.5 / um_per_px)
    outline = sum(float(np.abs(np.diff(smooth, axis=axis)).sum()) for axis in (0, 1))
    return min(4.0 * float(smooth.sum()) / max(outline, 1.0) * um_per_px, 20.0)


def _clustering(nuclear: NDArray[np.float32], um_per_px: float) -> float:
    """Return how unevenly nuclei lie at 16 um: coefficient of variation, in [0, 5]."""
    local = _blur(_box_means(nuclear, COARSE), 16.0 / um_per_px / COARSE)
    return min(float(local.std()) / max(float(local.mean()), 0.02), 5.0)


def _textures(grey: NDArray[np.float32], um_per_px: float) -> list[float]:
    """Return the contrast of four bands, each an octave wide, from 1 um on."""
    fine = [grey] + [_blur(grey, sigma_um / um_per_px) for sigma_um in (1, 2)]
    boxes = _box_means(grey, COARSE)
    coarse = [_blur(boxes, sigma_um / um_per_px / COARSE) for sigma_um in (2, 4, 8)]
    return [
        float((narrow - wide).std())
        for scales in (fine, coarse)
        for narrow, wide in itertools.pairwise(scales)
    ]


def _directions(grey: NDArray[np.float32], um_per_px: float) -> tuple[float, float]:
    """Return local anisotropy of edges at 4 um and alignment over the tile, both in [0, 1].

    From the structure tensor (Bigun and Granlund 1987), weighted by edge energy.
    """
    dy, dx = np.gradient(_blur(grey, 1.0 / um_per_px))
    energy, real, imaginary = dx * dx + dy * dy, dx * dx - dy * dy, 2 * dx * dy
    sigma_px = 4.0 / um_per_px / COARSE
    local = [_blur(_box_means(part, COARSE), sigma_px) for part in (real, imaginary)]
    total = max(float(energy.mean()), 1e-9)
    anisotropy = float(np.hypot(*local).mean()) / total
    alignment = float(np.hypot(real.mean(), imaginary.mean())) / total
    return min(anisotropy, 1.0), min(alignment, 1.0)
