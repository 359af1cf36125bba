"""Training pairs of the class matcher alone: many, as the encoder's part of the work is done once.

Two kinds. Recolourings: sampled tiles of one image, recoloured as in `head_data`, source and target
of deliberately like, unlike or any composition. Phantoms: one section stained by two laboratories,
whose truth no colour operator reaches in full.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.diffusion.compact_phantoms import (
    FACTOR_SHARES,
    FACTORS,
    draw_laboratory,
    draw_sections,
    draw_window,
    rendered,
)
from stainfuser.diffusion.head_data import (
    FIRST_RECOLOURING_SHARE,
    GLASS_OD,
    MAX_GLASS_SHIFT_OD,
    draw_map,
    is_plausible,
    moved_directions,
    stack,
    unchanged,
)
from stainfuser.diffusion.tile_samples import (
    HERE,
    TileSamples,
    draw_places,
    sample_tile,
    sampled_od,
    sampled_statistics,
)
from stainfuser.diffusion.training_images import TrainingImage, draw_scale
from stainfuser.diffusion.training_images import draw_window as draw_image_window
from stainfuser.errors import InputError
from stainfuser.logs import progress
from stainfuser.nn.class_statistics import ClassStatistics
from stainfuser.nn.od_torch import od_to_rgb
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.seeds import generator
from stainfuser.stain.benchmark_tasks import SHARE_WEIGHT_DE, region_bands
from stainfuser.stain.phantom_unseen import with_scanner_optics
from stainfuser.stain.weak_labels import BACKGROUND, NUCLEI

# Stains that each tile is encoded in, its own among them.
STAINS = 3
STAIN_ATTEMPTS = 20
# Tiles of source and target per example, one combination per step.
SET_SIZES = ((1, 1), (1, 1), (1, 1), (1, 1), (2, 2), (1, 3), (3, 1))
# Of so many tiles that do not overlap the source, targets are the most like, the most unlike, or
# any: the nearest or farthest share of them.
CANDIDATES, EXTREME_SHARE = 24, 0.25
# Scales of an image with fewer tiles are left out.
MIN_TILES = 4
# Tiles overlap when both offsets are less than this share of their side.
OVERLAP = 0.6
# Spread of the log weights by which a tile is made to show more or less of each class.
REWEIGHTING = 1.2
# Plausibility is judged on every so manieth pixel.
SKETCH_STEP = 8


@dataclass(frozen=True)
class TileBank:
    """Tiles of training images, and which of them carry one stain.

    `groups`: numbers of the tiles of one image at one scale; `unlikeness`, per group: how far the
    composition of two tiles differs, units of CIEDE2000, NaN where they overlap; `directions`, per
    group: the image's stain directions, (2, 3).
    """

    samples: TileSamples
    groups: list[NDArray[np.intp]]
    unlikeness: list[NDArray[np.float64]]
    directions: list[NDArray[np.floating]]


@dataclass(frozen=True)
class PhantomBank:
    """Q pairs: source, target, and (Q, P, 3) OD of both in the other's stain."""

    source: TileSamples
    target: TileSamples
    truth: Tensor
    other: Tensor


@dataclass(frozen=True)
class MatcherBatch:
    """B pairs as statistics and sampled pixels.

    `source_od` (B, n, 3, P, 3) and `target_od` (B, m, 3, P, 3); `truth` (B, n, P, 3): the source in
    the target's stain, `other` (B, m, P, 3) the reverse; `source_labels`, `target_labels` int64.
    """

    source: ClassStatistics
    target: ClassStatistics
    source_od: Tensor
    target_od: Tensor
    truth: Tensor
    other: Tensor
    source_labels: Tensor
    target_labels: Tensor


def sample_images(
    head: OperatorHead,
    images: Sequence[TrainingImage],
    tiles_per_image: int,
    pixels: int,
    tile_px: int,
    seed: int,
) -> TileBank:
    """Sample tiles at all scales of all images; scales at which tiles all overlap are left out.

    Raises `InputError` where nothing is left.
    """
    parts: list[TileSamples] = []
    groups, unlikeness, directions = [], [], []
    for image in progress(images, "tiles for the matcher"):
        rng = generator(seed, "matcher", "tiles", image.name)
        scales = np.array([draw_scale(image, rng) for _ in range(tiles_per_image)])
        for scale in range(len(image.pixels)):
            count = int((scales == scale).sum())
            if count < MIN_TILES:
                continue
            windows = [draw_image_window(image, scale, tile_px, rng) for _ in range(count)]
            distance = _unlikeness(image, scale, windows, tile_px)
            usable = np.flatnonzero(np.isfinite(distance).any(axis=1))
            for number in usable:
                parts.append(_sample_window(head, image, scale, windows[number], pixels, rng))
            if len(usable):
                groups.append(np.arange(len(parts) - len(usable), len(parts)))
                unlikeness.append(distance[np.ix_(usable, usable)])
                directions.append(image.directions)
    if not groups:
        raise InputError(
            "training images",
            f"none shows two tiles of {tile_px} px side by side",
            "add larger images or lower operator_head.matcher_tile_px",
        )
    return TileBank(TileSamples.joined(parts), groups, unlikeness, directions)


def sample_phantoms(
    head: OperatorHead, pairs: int, pixels: int, tile_px: int, seed: int, sections: int
) -> PhantomBank:
    """Draw pairs of two laboratories each, as `compact_phantoms` does: truth with one's optics."""
    grown = draw_sections(sections, seed, "matcher")
    rows: list[tuple[TileSamples, TileSamples, Tensor, Tensor]] = []
    for number in progress(range(pairs), "phantoms for the matcher"):
        rng = generator(seed, "matcher", "phantoms", number)
        labs = draw_laboratory(rng), draw_laboratory(rng)
        factor = int(rng.choice(FACTORS, p=FACTOR_SHARES))
        row: list = []
        for side, section in enumerate(rng.integers(0, sections, 2)):
            own, wanted = labs[side], with_scanner_optics(labs[1 - side], labs[side])
            part = draw_window(grown[section], tile_px * factor, rng)
            noise = int(rng.integers(2**31))
            tile, answer = (
                torch.from_numpy(rendered(part, lab, factor, np.random.default_rng(noise))).float()
                for lab in (own, wanted)
            )
            places = draw_places(tile_px, pixels, int(rng.integers(2**31)))
            margin = (len(part.labels) - tile_px * factor) // 2
            inner = part.labels[margin : margin + tile_px * factor : factor]
            inner = inner[:, margin : margin + tile_px * factor : factor]
            labels = np.where(inner > 0, NUCLEI, 2).astype(np.uint8)
            labels[(tile.numpy().min(-1) > 225) & (inner == 0)] = BACKGROUND
            row.append(sample_tile(head, tile, tile[None], torch.from_numpy(labels), places))
            row.append(sampled_od(answer, places)[HERE])
        rows.append((row[0], row[2], row[1], row[3]))
    source, target, truth, other = zip(*rows, strict=True)
    joined = (TileSamples.joined(part) for part in (source, target))
    return PhantomBank(*joined, *(torch.stack(part) for part in (truth, other)))


def draw_recolourings(bank: TileBank, count: int, seed: int, *purpose: object) -> MatcherBatch:
    """Draw a batch of recoloured tiles; `purpose` (a step's number) seeds it."""
    rng = generator(seed, "matcher", "recolourings", *purpose)
    sources, targets = SET_SIZES[rng.integers(len(SET_SIZES))]
    weights = np.array([len(group) for group in bank.groups], float)
    chosen: list[tuple] = []
    while len(chosen) < count:
        drawn = []
        for group in rng.choice(len(bank.groups), count, p=weights / weights.sum()):
            rows = _draw_tiles(bank, int(group), sources, targets, rng)
            first, directions = unchanged(), bank.directions[group]
            if rng.random() < FIRST_RECOLOURING_SHARE:
                first = draw_map(directions, rng)
                directions = moved_directions(directions, first)
            drawn.append((rows, first, draw_map(directions, rng)))
        chosen += _plausible(bank, drawn)
    rows, first, second = zip(*chosen[:count], strict=True)
    tiles = torch.from_numpy(np.stack(rows))
    before, after = stack(first), stack(second)
    od = bank.samples.od[tiles].float()
    own = before.apply_to_od(od.flatten(1, -2)).reshape(od.shape)
    moved = after.apply_to_od(own.flatten(1, -2)).reshape(od.shape)
    stains = torch.from_numpy(rng.integers(0, STAINS, tiles.shape))
    sides = []
    for part, part_od in ((slice(None, sources), own), (slice(sources, None), moved)):
        index = (tiles[:, part], stains[:, part])
        logits = bank.samples.logits[index].float()
        sides.append(
            sampled_statistics(
                part_od[:, part, HERE],
                logits,
                bank.samples.group_logits[index].float(),
                bank.samples.context[index],
                _reweighted(logits, rng),
            )
        )
    labels = bank.samples.labels[tiles].long()
    return MatcherBatch(
        *sides,
        own[:, :sources],
        moved[:, sources:],
        moved[:, :sources, HERE],
        own[:, sources:, HERE],
        labels[:, :sources],
        labels[:, sources:],
    )


def draw_phantoms(bank: PhantomBank, count: int, seed: int, *purpose: object) -> MatcherBatch:
    """Draw a batch of phantom pairs."""
    rng = generator(seed, "matcher", "phantom rows", *purpose)
    rows = torch.from_numpy(rng.integers(0, len(bank.truth), count))
    sides, pixels, labels = [], [], []
    for samples in (bank.source, bank.target):
        od = samples.od[rows].float()
        logits = samples.logits[rows].float()
        group_logits = samples.group_logits[rows].float()
        weights = _reweighted(logits, rng)
        sides.append(
            sampled_statistics(
                od[:, None, HERE], logits, group_logits, samples.context[rows], weights
            )
        )
        pixels.append(od[:, None])
        labels.append(samples.labels[rows].long()[:, None])
    answers = (answer[rows][:, None] for answer in (bank.truth, bank.other))
    return MatcherBatch(*sides, *pixels, *answers, *labels)


def _sample_window(
    head: OperatorHead,
    image: TrainingImage,
    scale: int,
    window: tuple[slice, slice],
    pixels: int,
    rng: np.random.Generator,
) -> TileSamples:
    """Encode a window in its own stain and in others."""
    turns, mirrored = int(rng.integers(4)), rng.random() < 0.5
    parts = [np.rot90(part[scale][window], turns) for part in (image.pixels, image.labels)]
    tile, labels = (
        torch.from_numpy(np.ascontiguousarray(part[:, ::-1] if mirrored else part))
        for part in parts
    )
    tile = tile.float()
    looks = [tile]
    while len(looks) < STAINS:
        for _ in range(STAIN_ATTEMPTS):
            look = stack([draw_map(image.directions, rng)])(tile[None])[0]
            if is_plausible(look[::SKETCH_STEP, ::SKETCH_STEP].numpy()):
                break
        looks.append(look)
    places = draw_places(len(tile), pixels, int(rng.integers(2**31)))
    return sample_tile(head, tile, torch.stack(looks), labels, places)


def _unlikeness(
    image: TrainingImage, scale: int, windows: Sequence[tuple[slice, slice]], tile_px: int
) -> NDArray[np.float64]:
    """Return (n, n): how unlike the composition of windows is; NaN where they overlap."""
    from skimage.color import deltaE_ciede2000

    pixels, labels = image.pixels[scale], image.labels[scale]
    bands = np.stack([region_bands(pixels[window]) for window in windows])
    shares = np.array(
        [[(labels[window] == kind).mean() for kind in (BACKGROUND, NUCLEI)] for window in windows]
    )
    distance = deltaE_ciede2000(bands[:, None], bands[None]).mean(-1)
    distance = distance + SHARE_WEIGHT_DE * np.abs(shares[:, None] - shares[None]).sum(-1)
    places = np.array([[axis.start for axis in window] for window in windows])
    overlap = (np.abs(places[:, None] - places[None]) < OVERLAP * tile_px).all(-1)
    return np.where(overlap, np.nan, distance)


def _draw_tiles(
    bank: TileBank, group: int, sources: int, targets: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return numbers of source tiles and of target tiles of one group."""
    members, unlikeness = bank.groups[group], bank.unlikeness[group]
    own = int(rng.integers(len(members)))
    apart = np.flatnonzero(np.isfinite(unlikeness[own]))
    candidates = rng.permutation(apart)[:CANDIDATES]
    others = candidates[np.argsort(unlikeness[own, candidates])]
    extreme = max(int(EXTREME_SHARE * len(others)), 1)
    pool = (others[:extreme], others[-extreme:], others)[rng.integers(3)]
    more = rng.choice(len(members), sources - 1)
    return members[np.concatenate([[own], more, rng.choice(pool, targets)]).astype(np.intp)]


def _plausible(bank: TileBank, drawn: list[tuple]) -> list[tuple]:
    """Return the examples whose tiles still look like H&E, on a few of their pixels."""
    rows, first, second = zip(*drawn, strict=True)
    before, after = stack(first), stack(second)
    tiles = torch.from_numpy(np.stack(rows))
    od = bank.samples.od[tiles][:, :, HERE, ::SKETCH_STEP].float().flatten(1, 2)
    glass = torch.full((len(drawn), 1, 3), GLASS_OD)
    is_he = np.ones(len(drawn), bool)
    for recolouring in (before, after):
        shift = (recolouring.apply_to_od(glass) - glass).abs().amax(dim=(1, 2))
        is_he &= (shift <= MAX_GLASS_SHIFT_OD).numpy()
        od = recolouring.apply_to_od(od)
        is_he &= np.array([is_plausible(rgb) for rgb in od_to_rgb(od).numpy()])
    return [example for example, good in zip(drawn, is_he, strict=True) if good]


def _reweighted(logits: Tensor, rng: np.random.Generator) -> Tensor:
    """Return (..., P) weights, mean 1, that show more of some classes of (..., K, P) and less.

    Composition is what a few tiles of few images vary least.
    """
    shape = (*logits.shape[:-1], 1)
    strength = REWEIGHTING * rng.random((len(logits), *[1] * (logits.ndim - 1)))
    factor = np.exp(strength * rng.standard_normal(shape)).astype(np.float32)
    weights = (logits.softmax(-2) * torch.from_numpy(factor)).sum(-2)
    return weights / weights.mean(-1, keepdim=True)
