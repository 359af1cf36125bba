"""Images that tiles are cut out of for training: at several scales, with rough labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.stain_directions import stain_directions
from stainfuser.stain.weak_labels import BACKGROUND, NUCLEI, weak_labels

# Whole factors by which images are averaged before tiles are cut: nuclei of 40x down to overviews.
SCALES = (1, 2, 3, 4, 6)
SCALE_SHARES = (0.24, 0.34, 0.2, 0.14, 0.08)
# Tiles with less tissue than this are drawn again, so often.
MIN_TISSUE_FRACTION, TILE_ATTEMPTS = 0.2, 12


@dataclass(frozen=True)
class TrainingImage:
    """One image at several scales.

    Attributes
    ----------
    name
        File name.
    pixels
        Per scale (H, W, 3) uint8 RGB; scales at which the image is smaller than a tile are left
        out.
    labels
        Per scale (H, W) uint8: `weak_labels`.
    directions
        (2, 3): stain directions.
    """

    name: str
    pixels: tuple[NDArray[np.uint8], ...]
    labels: tuple[NDArray[np.uint8], ...]
    directions: NDArray[np.float32]


def prepare_image(
    name: str,
    rgb: NDArray[np.uint8],
    tile_px: int,
    labels: NDArray[np.uint8] | None = None,
) -> TrainingImage:
    """Average an image to all scales and label it; raises `ValueError` below `tile_px`."""
    if min(rgb.shape[:2]) < tile_px:
        raise ValueError(f"{name}: {rgb.shape[1]} x {rgb.shape[0]} px is less than a tile")
    labels = weak_labels(rgb) if labels is None else labels
    factors = [f for f in SCALES if min(rgb.shape[:2]) // f >= tile_px]
    return TrainingImage(
        name,
        tuple(_averaged(rgb, f) for f in factors),
        tuple(_subsampled(labels, f) for f in factors),
        stain_directions(rgb_to_od(rgb[::2, ::2])),
    )


def draw_scale(image: TrainingImage, rng: np.random.Generator) -> int:
    """Return the number of one of the scales of an image."""
    shares = np.array(SCALE_SHARES[: len(image.pixels)])
    return int(rng.choice(len(shares), p=shares / shares.sum()))


def draw_tile(
    image: TrainingImage, scale: int, tile_px: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cut a tile and its labels out of one scale, turned and mirrored; with tissue, if found."""
    pixels, labels = image.pixels[scale], image.labels[scale]
    for _ in range(TILE_ATTEMPTS):
        row, column = (rng.integers(side - tile_px + 1) for side in labels.shape)
        window = (slice(row, row + tile_px), slice(column, column + tile_px))
        if (labels[window] != BACKGROUND).mean() >= MIN_TISSUE_FRACTION:
            break
    turns, flip = int(rng.integers(4)), rng.random() < 0.5
    return _turned(pixels[window], turns, flip), _turned(labels[window], turns, flip)


def unlikeness(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return how far two tiles' labels differ in their shares of glass and of nuclei, in [0, 2]."""
    shares = [[(own == kind).mean() for kind in (BACKGROUND, NUCLEI)] for own in (first, second)]
    return float(np.abs(np.subtract(*shares)).sum())


def _turned(array: NDArray, turns: int, flip: bool) -> NDArray:
    array = np.rot90(array, turns)
    return array[:, ::-1] if flip else array


def _averaged(rgb: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return rgb
    rows, columns = rgb.shape[0] // factor, rgb.shape[1] // factor
    blocks = rgb[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)


def _subsampled(labels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    rows, columns = labels.shape[0] // factor, labels.shape[1] // factor
    middle = factor // 2
    return labels[middle : rows * factor : factor, middle : columns * factor : factor]


def phantom_labels(nuclei: NDArray[np.integer], rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `weak_labels` with the nuclei of a phantom, which are known."""
    labels = weak_labels(rgb)
    labels[labels == NUCLEI] = 2
    labels[np.asarray(nuclei) > 0] = NUCLEI
    return labels
