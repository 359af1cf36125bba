"""Training examples of the operator head: real tissue, recoloured, with the exact answer.

Two sets of tiles of one image carry one stain. A first recolouring T0 gives both another look; a
second one, T1, makes the target from one set and the truth from the other. Everything drawn for a
step depends on the seed and the number of the step alone, so that a resumed run sees what an
uninterrupted one would have seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stainfuser.diffusion.training_images import (
    TrainingImage,
    draw_scale,
    draw_tile,
    unlikeness,
)
from stainfuser.nn.colour_moments import ColourMoments, tissue_moments
from stainfuser.nn.recolour import RecolouringBatch
from stainfuser.seeds import generator
from stainfuser.stain.not_he import draw_not_he
from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.recolouring import BENDS, Recolouring, random_recolouring

# Shares of targets of deliberately other and of like composition, picked from so many candidates
# for each tile; the rest are as they come.
MISMATCHED_SHARE, MATCHED_SHARE, CANDIDATES = 0.25, 0.35, 4
SAME_TISSUE_SHARE = 0.12
OTHER_SCALE_SHARE = 0.25
FIRST_RECOLOURING_SHARE = 0.6
NOT_HE_SHARE = 0.18
# The answer is compared on every so manieth pixel.
COLOUR_STEP = 2
# Tiles of source and target per example, one combination per step.
SET_SIZES = ((1, 1), (1, 1), (2, 2), (2, 2), (1, 3), (3, 1), (3, 3))
# Glass may not change colour by more than this: an operator that keeps white cannot follow.
GLASS_OD, MAX_GLASS_SHIFT_OD = 0.04, 0.09
# Realism is judged on every so manieth pixel.
SKETCH_STEP = 8


@dataclass(frozen=True)
class HeadBatch:
    """B examples: tiles float32 RGB in [0, 255].

    `source` (B, n, H, W, 3); `target` (B, m, H, W, 3); `truth` (B, n, h, w, 3) of every
    `COLOUR_STEP`-th pixel of the source; `other` (B, m, H, W, 3): the tissue of the target in the
    source's stain, which is known as well; `source_labels` (B, n, H, W) and
    `target_labels` int64; `is_he` (B, 2) float32: whether source and target are H&E. Where either
    is not, truth and other say nothing.
    """

    source: Tensor
    target: Tensor
    truth: Tensor
    other: Tensor
    source_labels: Tensor
    target_labels: Tensor
    is_he: Tensor


@dataclass(frozen=True)
class Example:
    """Tiles (n, H, W, 3) and labels (n, H, W) of one image, and two recolourings to apply."""

    image: TrainingImage
    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    source_labels: NDArray[np.uint8]
    target_labels: NDArray[np.uint8]
    first: Recolouring
    second: Recolouring


def starting_classes(
    images: Sequence[TrainingImage], classes: int, tile_px: int, seed: int
) -> tuple[Tensor, float]:
    """Return cluster centres (classes, RELATIVE_COLOURS) of relative colours, and their variance.

    Before anything is learned these are the tissue classes: the same place among a slide's
    colours, which a change of stain hardly moves.
    """
    from sklearn.cluster import KMeans

    rng = generator(seed, "operator_head", "classes")
    colours = [_relative_colours(image, tile_px, rng) for image in images for _ in range(6)]
    points = np.concatenate(colours)
    fitted = KMeans(classes, n_init=2, random_state=int(rng.integers(2**31))).fit(points)
    variance = float(fitted.inertia_) / points.size
    return torch.from_numpy(fitted.cluster_centers_).float(), variance


def _relative_colours(
    image: TrainingImage, tile_px: int, rng: np.random.Generator, count: int = 200
) -> NDArray[np.float32]:
    """Return (count, RELATIVE_COLOURS) pixels of one tile."""
    tile, _ = draw_tile(image, draw_scale(image, rng), tile_px, rng)
    od = torch.from_numpy(rgb_to_od(tile)).permute(2, 0, 1)[None]
    relative = ColourMoments(tissue_moments(od)).standardized(od)
    pixels = F.avg_pool2d(relative, 2).flatten(2)[0].T.numpy()
    return pixels[rng.permutation(len(pixels))[:count]]


def draw_batch(
    images: Sequence[TrainingImage], tiles: int, tile_px: int, seed: int, *purpose: object
) -> HeadBatch:
    """Draw a batch of about `tiles` tiles in all; `purpose` (a step's number) seeds it."""
    rng = generator(seed, "operator_head", *purpose)
    sources, targets = SET_SIZES[rng.integers(len(SET_SIZES))]
    wanted = max(tiles // (sources + targets), 1)
    examples: list[Example] = []
    while len(examples) < wanted:
        drawn = [draw_example(images, sources, targets, tile_px, rng) for _ in range(wanted)]
        examples += [e for e, is_he in zip(drawn, look_like_he(drawn), strict=True) if is_he]
    return _render(examples[:wanted], rng)


def draw_example(
    images: Sequence[TrainingImage],
    sources: int,
    targets: int,
    tile_px: int,
    rng: np.random.Generator,
) -> Example:
    """Draw tiles and two recolourings."""
    weights = np.sqrt([min(image.pixels[0].size, 3_000_000) for image in images])
    image = images[rng.choice(len(images), p=weights / weights.sum())]
    scale = draw_scale(image, rng)
    source = [draw_tile(image, scale, tile_px, rng) for _ in range(sources)]
    if rng.random() < SAME_TISSUE_SHARE and sources == targets:
        target = source
    else:
        if rng.random() < OTHER_SCALE_SHARE:
            scale = int(np.clip(scale + rng.choice([-1, 1]), 0, len(image.pixels) - 1))
        target = _draw_target(image, scale, targets, tile_px, source[0][1], rng)
    first = second = unchanged()
    directions = image.directions
    if rng.random() < FIRST_RECOLOURING_SHARE:
        first = draw_map(directions, rng)
        directions = moved_directions(directions, first)
    second = draw_map(directions, rng)
    tiles, labels = (np.stack(part) for part in zip(*source, strict=True))
    other, other_labels = (np.stack(part) for part in zip(*target, strict=True))
    return Example(image, tiles, other, labels, other_labels, first, second)


def draw_map(directions: NDArray[np.floating], rng: np.random.Generator) -> Recolouring:
    """Draw a recolouring of the training family: broader than what laboratories do."""
    drawn = random_recolouring(directions, rng, strength=rng.uniform(0.2, 1.5))
    if rng.random() < 0.35:
        mixing = np.diag(np.exp(rng.normal(0, 0.25, 3))) + rng.normal(0, 0.1, (3, 3))
        drawn = replace(drawn, swap=mixing)
    return replace(drawn, swap=drawn.swap * np.exp(rng.normal(0, 0.22)))


def unchanged() -> Recolouring:
    """Return the recolouring that changes nothing."""
    curve = np.zeros((10, 3))
    curve[1:4] = np.eye(3)
    bends = np.zeros((BENDS, 7))
    bends[:, 6] = 1.0
    return Recolouring(np.eye(3), np.ones(3), curve, bends)


def moved_directions(
    directions: NDArray[np.floating], recolouring: Recolouring
) -> NDArray[np.float64]:
    """Return where a recolouring takes stain directions, (2, 3) unit vectors."""
    moved = np.clip(np.asarray(directions) @ recolouring.swap @ recolouring.curve[1:4], 0.01, None)
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def stack(recolourings: Sequence[Recolouring]) -> RecolouringBatch:
    """Return recolourings as tensors, one row each."""
    fields = ("swap", "gamma", "curve", "bends")
    stacked = [np.stack([getattr(r, field) for r in recolourings]) for field in fields]
    return RecolouringBatch(*(torch.from_numpy(field).float() for field in stacked))


def _render(examples: list[Example], rng: np.random.Generator) -> HeadBatch:
    first, second = (stack([getattr(e, n) for e in examples]) for n in ("first", "second"))
    raw = [
        _with_noise(np.stack([getattr(e, n) for e in examples]), rng) for n in ("source", "target")
    ]
    source, other = first(raw[0]), first(raw[1])
    grid = (slice(None), slice(None), *[slice(None, None, COLOUR_STEP)] * 2)
    target, truth = second(other), second(source[grid])
    is_he = torch.ones(len(examples), 2)
    for row, example in enumerate(examples):
        if rng.random() < NOT_HE_SHARE:
            side = int(rng.integers(2))
            tiles = (source, target)[side][row]
            directions = example.image.directions
            spoilt, _ = draw_not_he(tiles.numpy().astype(np.uint8), directions, rng)
            tiles.copy_(torch.from_numpy(spoilt).float())
            is_he[row, side] = 0.0
    labels = [
        torch.from_numpy(np.stack([getattr(e, n) for e in examples])).long()
        for n in ("source_labels", "target_labels")
    ]
    return HeadBatch(source, target, truth, other, *labels, is_he)


def look_like_he(examples: Sequence[Example]) -> list[bool]:
    """Judge source, target and truth of each example on a few of their pixels."""
    first, second = (stack([getattr(e, n) for e in examples]) for n in ("first", "second"))
    is_he = np.ones(len(examples), bool)
    for recolouring in (first, second):
        glass = torch.full((len(examples), 1, 3), GLASS_OD)
        moved = (recolouring.apply_to_od(glass) - glass).abs().amax(dim=(1, 2))
        is_he &= (moved <= MAX_GLASS_SHIFT_OD).numpy()
    for side in ("source", "target"):
        tiles = np.stack([getattr(e, side)[:, ::SKETCH_STEP, ::SKETCH_STEP] for e in examples])
        before = first(torch.from_numpy(tiles).float().flatten(1, -2))
        for sketch in (before, second(before)):
            is_he &= np.array([is_plausible(rgb) for rgb in sketch.numpy()])
    return is_he.tolist()


def is_plausible(rgb: NDArray[np.floating]) -> bool:
    """Say whether (..., 3) RGB could be H&E: exposed, not flat, magenta rather than green."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    clipped = ((rgb < 4) | (rgb > 253)).mean()
    greenish = (green > np.maximum(red, blue) + 3).mean()
    magenta = ((red + blue) / 2 - green).mean()
    is_exposed = 50 < rgb.mean() < 247 and clipped < 0.6 and rgb.std() > 6
    return bool(is_exposed and greenish < 0.03 and magenta > 2.5)


def _draw_target(
    image: TrainingImage,
    scale: int,
    count: int,
    tile_px: int,
    labels: NDArray[np.uint8],
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Draw target tiles; some sets are those most or least like the source in nuclei and glass."""
    kind = rng.random()
    chosen = kind < MISMATCHED_SHARE + MATCHED_SHARE
    draws = count * (CANDIDATES if chosen else 1)
    tiles = [draw_tile(image, scale, tile_px, rng) for _ in range(draws)]
    misses = [unlikeness(own, labels) for _, own in tiles]
    order = np.argsort(misses, kind="stable") if chosen else np.arange(draws)
    if kind < MISMATCHED_SHARE:
        order = order[::-1]
    return [tiles[i] for i in order[:count]]


def _with_noise(tiles: NDArray[np.uint8], rng: np.random.Generator) -> Tensor:
    """Return float tiles, every other example with a little sensor noise."""
    strength = rng.uniform(0, 2.5, (len(tiles), 1, 1, 1, 1)) * (
        rng.random((len(tiles), 1, 1, 1, 1)) < 0.5
    )
    noise = rng.standard_normal(tiles.shape, dtype=np.float32) * strength.astype(np.float32)
    return torch.from_numpy(np.clip(np.rint(tiles + noise), 0, 255).astype(np.float32))
