"""How far an image is from the look of a target that shows *other* tissue.

Distances of whole-image colour distributions are fooled by composition: where the target is
denser in nuclei, painting stroma purple brings them down. `style_distance` therefore compares
like with like: background with background, nuclei with nuclei, the rest with the rest.
`sliced_wasserstein` is the plain distance, kept because it is what others report.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import rgb_to_od

# The classes of `soft_classes`, in its order.
CLASS_NAMES = ("background", "nuclei", "stroma")
# Mean optical density at which a pixel is as likely tissue as background, and the softness.
TISSUE_OD, TISSUE_SOFTNESS_OD = 0.12, 0.02
# The background of a scan is rarely darker than this; an image without background has no white.
MAX_WHITE_OD = 0.08
# A class with less than this fraction of the pixels is too small to compare.
MIN_CLASS_FRACTION = 0.02
# At most this many pixels, on a regular grid, enter a distance.
MAX_PIXELS = 65536
# Directions, quantiles and pixels of the sliced Wasserstein distance.
PROJECTIONS, QUANTILES, MAX_SLICED_PIXELS = 64, 256, 16384
# Tissue whose red optical density varies less than this is of one colour.
MIN_RANGE_OD = 1e-3
# Red optical density that tells nuclei from the rest where an image shows one colour only.
NUCLEAR_RED_OD = 0.5
EM_ROUNDS = 30


def style_distance(
    result: NDArray[np.uint8],
    target: NDArray[np.uint8],
    source: NDArray[np.uint8] | None = None,
) -> float:
    """Return the class-wise distance between the looks of `result` and `target`, OD, >= 0.

    The pixels of each image are shared out softly to background, haematoxylin and eosin; the
    distance is the mean, over classes that both show, of the Frechet distance between the
    classes' diagonal Gaussians in optical density (root of squared differences of means and of
    standard deviations). With `source`, of the shape of `result`, the classes of `result` are
    those of the source's pixels: repainting stroma as nuclei then raises the distance.

    NaN when the images have no class in common (one blank, the other without background).
    """
    return StyleReference(target).distance(result, source)


def sliced_wasserstein(result: NDArray[np.uint8], target: NDArray[np.uint8]) -> float:
    """Return the sliced 1-Wasserstein distance between all optical densities of two images, OD.

    Mean over 64 fixed directions of the mean absolute difference of 256 quantiles. It compares
    stain *and* composition: the true result has a large distance where the tissues differ.
    """
    return StyleReference(target).sliced_wasserstein(result)


class StyleReference:
    """A target measured once, to compare many images with it.

    Parameters
    ----------
    target
        (H, W, 3) uint8 RGB; `ValueError` for anything else.
    """

    def __init__(self, target: NDArray[np.uint8]) -> None:
        pixels = _sample(target, MAX_PIXELS)
        self._classes = _class_statistics(rgb_to_od(pixels), soft_classes(pixels))
        self._quantiles = _projected_quantiles(target)

    def distance(self, result: NDArray[np.uint8], source: NDArray[np.uint8] | None = None) -> float:
        """Return `style_distance` of `result` to this target."""
        distances = [*self.class_distances(result, source).values()]
        shared = [distance for distance in distances if np.isfinite(distance)]
        return float(np.mean(shared)) if shared else float("nan")

    def class_distances(
        self, result: NDArray[np.uint8], source: NDArray[np.uint8] | None = None
    ) -> dict[str, float]:
        """Return tissue class → its part of `style_distance`, OD; NaN where one shows none of it.

        Classes: background, nuclei, stroma (all of the tissue that is not nuclear).
        """
        if source is not None and source.shape != result.shape:
            raise ValueError(f"source of shape {result.shape} expected, got {source.shape}")
        classes = soft_classes(_sample(result if source is None else source, MAX_PIXELS))
        own = _class_statistics(rgb_to_od(_sample(result, MAX_PIXELS)), classes)
        other = self._classes
        shared = (own.mass >= MIN_CLASS_FRACTION) & (other.mass >= MIN_CLASS_FRACTION)
        square = np.square(own.mean - other.mean) + np.square(own.std - other.std)
        distances = np.where(shared, np.sqrt(square.sum(axis=1)), np.nan)
        return dict(zip(CLASS_NAMES, distances.tolist(), strict=True))

    def sliced_wasserstein(self, result: NDArray[np.uint8]) -> float:
        """Return `sliced_wasserstein` of `result` to this target."""
        return float(np.abs(_projected_quantiles(result) - self._quantiles).mean())


def soft_classes(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the membership of (N, 3) uint8 pixels in background, haematoxylin, eosin.

    (N, 3) float32, rows sum to 1. Background is what is hardly denser than the image's own
    white; the rest is divided by the absorption of red light, which haematoxylin has and eosin
    hardly has, where the image's own two groups part.
    """
    od = rgb_to_od(pixels)
    white = np.minimum(np.percentile(od, 1.0, axis=0), MAX_WHITE_OD).astype(np.float32)
    density = (od - white).mean(axis=1)
    tissue = _sigmoid((density - TISSUE_OD) / TISSUE_SOFTNESS_OD)
    red = od[:, 0]
    haematoxylin = tissue * _denser_share(red, red[tissue > 0.5])
    return np.stack([1.0 - tissue, haematoxylin, tissue - haematoxylin], axis=1)


def _projected_quantiles(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the quantiles of an image's optical densities along fixed directions, (P, Q)."""
    directions = np.random.default_rng(0).normal(size=(PROJECTIONS, 3))
    directions = (directions / np.linalg.norm(directions, axis=1)[:, None]).astype(np.float32)
    projected = np.sort(directions @ rgb_to_od(_sample(image, MAX_SLICED_PIXELS)).T, axis=1)
    levels = (np.arange(QUANTILES) + 0.5) / QUANTILES
    return projected[:, (levels * projected.shape[1]).astype(int)]


def _sample(image: NDArray[np.uint8], max_pixels: int) -> NDArray[np.uint8]:
    """Return at most `max_pixels` pixels of a (H, W, 3) image, evenly spread, as (N, 3)."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"expected a (H, W, 3) uint8 RGB array, got {image.shape} {image.dtype}")
    step = int(np.ceil(np.sqrt(image.shape[0] * image.shape[1] / max_pixels)))
    return image[::step, ::step].reshape(-1, 3)


class _ClassStatistics(NamedTuple):
    """Mass (C,) as a fraction of the pixels, mean and standard deviation (C, 3) in OD."""

    mass: NDArray[np.float64]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


def _class_statistics(od: NDArray[np.float32], classes: NDArray[np.float32]) -> _ClassStatistics:
    weights = classes.astype(np.float64)
    total = weights.sum(axis=0)
    share = weights / np.maximum(total, 1e-9)
    mean = share.T @ od
    variance = np.maximum(share.T @ np.square(od.astype(np.float64)) - np.square(mean), 0.0)
    return _ClassStatistics(total / len(od), mean, np.sqrt(variance))


def _denser_share(values: NDArray[np.float32], of_tissue: NDArray[np.float32]) -> NDArray:
    """Return how likely each value belongs to the denser of the two groups of `of_tissue`, [0, 1].

    Two Gaussians are fitted to a histogram (expectation maximisation from Otsu's threshold). Unlike
    the threshold alone this holds where one group is rare, as nuclei are in stroma.
    """
    if of_tissue.size < 2 or np.ptp(of_tissue) < MIN_RANGE_OD:
        # One colour only: call it haematoxylin if it absorbs red as nuclei do.
        return _sigmoid((values - NUCLEAR_RED_OD) / TISSUE_SOFTNESS_OD)
    counts, edges = np.histogram(of_tissue, bins=128)
    centres = (edges[:-1] + edges[1:]) / 2
    share = (centres > _otsu_threshold(counts, centres)).astype(np.float64)
    for _ in range(EM_ROUNDS):
        weights = np.stack([(1.0 - share) * counts, share * counts])
        share = _posterior_of_second(centres, weights)
    return np.interp(values, centres, share).astype(np.float32)


def _posterior_of_second(
    centres: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the share of the second of two Gaussians at (B,) `centres`, given (2, B) weights."""
    mass = weights.sum(axis=1) + 1e-9
    mean = weights @ centres / mass
    std = np.sqrt((weights * np.square(centres - mean[:, None])).sum(axis=1) / mass) + 0.02
    scores = np.square((centres - mean[:, None]) / std[:, None])
    density = (mass / std)[:, None] * np.exp(-0.5 * scores) + 1e-12
    share = density[1] / density.sum(axis=0)
    # Beyond either mean the wider Gaussian must not win back the far side.
    return np.where(centres >= mean[1], 1.0, np.where(centres <= mean[0], 0.0, share))


def _otsu_threshold(counts: NDArray[np.integer], centres: NDArray[np.float64]) -> float:
    """Return the bin centre that best divides a histogram in two (Otsu 1979)."""
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * centres)
    means_apart = sums[:-1] / below - (sums[-1] - sums[:-1]) / above
    return float(centres[int(np.argmax(below * above * np.square(means_apart)))])


def _sigmoid(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return (1.0 / (1.0 + np.exp(-np.clip(values, -30.0, 30.0)))).astype(np.float32)
