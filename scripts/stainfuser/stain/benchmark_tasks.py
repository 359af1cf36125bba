"""Tasks with a known or a measurable answer, for benchmarks: pure functions on arrays.

- Exact recolouring of held-out tissue: source, reference of matched or mismatched composition,
  and the truth (`composition_pairs`, `recolouring_task`).
- The mosaics of Fan et al.: the same regions of five blocks in nine staining protocols
  (`split_mosaic`, `region_bands`, `bands_difference`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.weak_labels import BACKGROUND, NUCLEI, weak_labels

MIN_TISSUE_FRACTION = 0.4
# Less glass than this is chance.
MIN_GLASS_FRACTION = 0.001
# Windows tried per pair when looking for tissue of other composition.
CANDIDATES = 24
FAN_PROTOCOLS, FAN_REGIONS = 9, 5
# Lightness bands, quantiles of the tissue, in which regions are compared.
BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
# What a share of nuclei or glass counts beside the colour difference of the bands.
SHARE_WEIGHT_DE = 20.0
# Lighter than this, CIE L* with hardly any chroma, is glass.
GLASS_LIGHTNESS, GLASS_CHROMA = 88.0, 8.0

Tile = NDArray[np.uint8]


@dataclass(frozen=True)
class CompositionPair:
    """Three windows of one image: `source`, tissue like it and tissue unlike it."""

    source: Tile
    matched: Tile
    mismatched: Tile


@dataclass(frozen=True)
class RecolouringTask:
    """`source` and `truth` show the same tissue; the references show the truth's stain."""

    source: Tile
    truth: Tile
    matched: Tile
    mismatched: Tile


def composition_pairs(
    rgb: Tile, tile_px: int, count: int, rng: np.random.Generator
) -> list[CompositionPair]:
    """Cut windows of `tile_px` from one image; fewer than `count` where tissue is scarce.

    All windows carry one stain, so how alike their tissue is shows in their colours
    (`region_bands`) and in their shares of nuclei and glass (`weak_labels`): of the windows drawn,
    the most and the least alike are the references.
    """
    labels = weak_labels(rgb)
    pairs = []
    for _ in range(count):
        windows = _tissue_windows(labels, tile_px, rng)
        if len(windows) < 3:
            continue
        source, *others = windows
        others.sort(key=lambda window: _composition_distance(rgb, labels, source, window))
        pairs.append(CompositionPair(rgb[source], rgb[others[0]], rgb[others[-1]]))
    return pairs


def recolouring_task(pair: CompositionPair, recolour: Callable[[Tile], Tile]) -> RecolouringTask:
    """Recolour the references and the truth of a pair."""
    return RecolouringTask(
        pair.source, recolour(pair.source), recolour(pair.matched), recolour(pair.mismatched)
    )


def split_mosaic(mosaic: Tile) -> Tile:
    """Return (FAN_PROTOCOLS, FAN_REGIONS, S, S, 3) of a mosaic: columns protocols, rows regions.

    Raises `ValueError` unless its sides divide accordingly.
    """
    rows, columns = mosaic.shape[0], mosaic.shape[1]
    if rows % FAN_REGIONS or columns % FAN_PROTOCOLS:
        raise ValueError(f"a mosaic of {columns} x {rows} px does not divide into regions")
    cells = mosaic.reshape(FAN_REGIONS, rows // FAN_REGIONS, FAN_PROTOCOLS, -1, 3)
    return np.ascontiguousarray(cells.transpose(2, 0, 1, 3, 4))


def region_bands(region: Tile) -> NDArray[np.float64]:
    """Return (len(BANDS) - 1, 3): mean CIE Lab of the tissue in each band of lightness.

    Adjacent sections show the same region but not the same pixels: the darkest tenth is nuclei in
    both, the lightest quarter the palest stroma. Without tissue all pixels count.
    """
    from skimage.color import rgb2lab

    lab = rgb2lab(region.astype(np.float32) / np.float32(255)).reshape(-1, 3)
    is_glass = (lab[:, 0] > GLASS_LIGHTNESS) & (np.hypot(lab[:, 1], lab[:, 2]) < GLASS_CHROMA)
    tissue = lab[~is_glass] if (~is_glass).sum() >= len(BANDS) else lab
    tissue = tissue[np.argsort(tissue[:, 0])]
    edges = np.round(np.array(BANDS) * len(tissue)).astype(int)
    return np.stack([tissue[a:b].mean(axis=0, dtype=np.float64) for a, b in pairwise(edges)])


def bands_difference(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Return the mean CIEDE2000 between the bands of two regions."""
    from skimage.color import deltaE_ciede2000

    return float(np.mean(deltaE_ciede2000(first, second)))


def glass_mask(rgb: Tile) -> NDArray[np.bool_]:
    """Return (H, W): what is glass beyond doubt, light and without colour.

    `weak_labels` alone takes the palest stroma for glass where an image shows next to none.
    """
    from skimage.color import rgb2lab

    lab = rgb2lab(rgb.astype(np.float32) / np.float32(255))
    is_white = (lab[..., 0] > GLASS_LIGHTNESS) & (np.hypot(lab[..., 1], lab[..., 2]) < GLASS_CHROMA)
    return is_white & (weak_labels(rgb) == BACKGROUND)


def background_change(source: Tile, result: Tile, glass: NDArray[np.bool_] | None = None) -> float:
    """Return the mean CIEDE2000 over the source's glass; NaN where it shows next to none.

    `glass` is `glass_mask` of the source, if it is known already.
    """
    from stainfuser.stain.metrics import ciede2000

    glass = glass_mask(source) if glass is None else glass
    if glass.mean() < MIN_GLASS_FRACTION:
        return float("nan")
    return ciede2000(source[glass][None], result[glass][None])


def _tissue_windows(
    labels: NDArray[np.uint8], tile_px: int, rng: np.random.Generator
) -> list[tuple[slice, slice]]:
    """Return windows of enough tissue in random order; the first overlaps none of the others."""
    windows: list[tuple[slice, slice]] = []
    for _ in range(CANDIDATES):
        row, column = (int(rng.integers(side - tile_px + 1)) for side in labels.shape)
        window = (slice(row, row + tile_px), slice(column, column + tile_px))
        overlaps = bool(windows) and all(
            abs(a.start - b.start) < tile_px for a, b in zip(window, windows[0], strict=True)
        )
        if not overlaps and (labels[window] != BACKGROUND).mean() >= MIN_TISSUE_FRACTION:
            windows.append(window)
    return windows


def _composition_distance(
    rgb: Tile,
    labels: NDArray[np.uint8],
    first: tuple[slice, slice],
    second: tuple[slice, slice],
) -> float:
    """Return how unlike the tissue of two windows is, in units of CIEDE2000."""
    shares = [
        [(labels[window] == label).mean() for label in (NUCLEI, BACKGROUND)]
        for window in (first, second)
    ]
    colours = bands_difference(region_bands(rgb[first]), region_bands(rgb[second]))
    return colours + SHARE_WEIGHT_DE * float(np.abs(np.subtract(*shares)).sum())
