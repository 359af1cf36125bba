"""Training pairs of the compact diffusion model: recoloured tissue and what no operator can do.

As for the operator head (`head_data`), two sets of tiles of one image carry one stain and two
recolourings make source, target and truth of them, exactly. The bridge starts from what the frozen
head makes of the source. So that there is something left for the diffusion model, in half of the
examples nuclei are recoloured a little otherwise than the rest, as another haematoxylin or another
time in it would: the same for target and truth, along a soft edge of the nuclei. Glass keeps its
colour, as it does in the start; where source or target is not H&E, the start is the truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from stainfuser.diffusion.head_data import (
    Example,
    draw_example,
    look_like_he,
    stack,
)
from stainfuser.diffusion.operator_start import find_operator
from stainfuser.diffusion.training_images import TrainingImage
from stainfuser.nn.od_torch import MAX_OD, od_to_rgb, rgb_to_od
from stainfuser.nn.recolour import RecolouringBatch
from stainfuser.seeds import generator
from stainfuser.stain.blend import glass_to_tissue
from stainfuser.stain.metrics import gradient_correlation
from stainfuser.stain.not_he import draw_not_he
from stainfuser.stain.operators import ColourOperator, apply_lookup_table
from stainfuser.stain.recolouring import Recolouring
from stainfuser.stain.weak_labels import NUCLEI

Tiles = NDArray[np.uint8]
# Tiles of source and target per example.
SET_SIZES = ((1, 1), (2, 1), (2, 2), (3, 2), (3, 3))
NUCLEAR_SHARE, NOT_HE_SHARE = 0.5, 0.08
# The head has seen these images and errs less on them than on a user's. So that the model learns to
# mend the errors of a start, the head sees one of several target tiles in a part of the examples,
# and in a part its operator is led astray: log of a factor per channel, mixing of OD.
PARTIAL_VIEW_SHARE, STRAYING_SHARE = 0.3, 0.25
STRAYING_GAIN, STRAYING_MIXING = 0.06, 0.03
# How much otherwise nuclei are recoloured: strength, hue (each a log of a factor), mixing of OD.
NUCLEAR_STRENGTH, NUCLEAR_HUE, NUCLEAR_MIXING = 0.12, 0.05, 0.03
# Width of the box, px, that softens the edge of nuclei, twice.
EDGE_PX = 5
# Truths in which the tissue's structure is less clear than this are not learned from.
MIN_STRUCTURE = 0.975
NOISE_LEVELS, NOISY_SHARE = 2.5, 0.5


@dataclass(frozen=True)
class RecolouredPair:
    """One example: uint8 RGB tiles, `source`, `start`, `truth` (n, S, S, 3), `target` (m, S, S, 3).

    `operator` is the head's, from the source to the target.
    """

    source: Tiles
    start: Tiles
    truth: Tiles
    target: Tiles
    operator: ColourOperator


def draw_pairs(
    images: Sequence[TrainingImage],
    head: Any,
    count: int,
    tile_px: int,
    seed: int,
    *purpose: object,
) -> list[RecolouredPair]:
    """Draw `count` examples; they depend on `seed` and `purpose` alone."""
    rng = generator(seed, "compact_diffusion", *purpose)
    pairs: list[RecolouredPair] = []
    while len(pairs) < count:
        sources, targets = SET_SIZES[rng.integers(len(SET_SIZES))]
        example = draw_example(images, sources, targets, tile_px, rng)
        if look_like_he([example])[0]:
            pair = _rendered(example, head, rng)
            pairs += [] if pair is None else [pair]
    return pairs


def _rendered(example: Example, head: Any, rng: np.random.Generator) -> RecolouredPair | None:
    """Recolour an example, or return None where tissue lost its structure."""
    first = stack([example.first])
    maps = _draw_maps(example.second, rng)
    source = first(_with_noise(example.source, rng))[0]
    other = first(_with_noise(example.target, rng))[0]
    truth = _to_uint8(_recoloured(source, example.source_labels, maps))
    target = _to_uint8(_recoloured(other, example.target_labels, maps))
    return finished_pair(
        _to_uint8(source), truth, target, head, rng, directions=example.image.directions
    )


def finished_pair(
    source: Tiles,
    truth: Tiles,
    target: Tiles,
    head: Any,
    rng: np.random.Generator,
    directions: NDArray[np.floating] | None = None,
) -> RecolouredPair | None:
    """Give source, truth and target the head's start, or return None where tissue lost structure.

    `directions` are the stain directions by which one side now and then becomes something that is
    not H&E.
    """
    if gradient_correlation(row(source), row(truth)) < MIN_STRUCTURE:
        return None
    is_he = directions is None or rng.random() >= NOT_HE_SHARE
    if not is_he and rng.integers(2):
        source, _ = draw_not_he(source, directions, rng)
    elif not is_he:
        target, _ = draw_not_he(target, directions, rng)
    seen = target[:1] if rng.random() < PARTIAL_VIEW_SHARE else target
    operator = find_operator(head, list(source), head.summarise(list(seen)))
    if is_he and rng.random() < STRAYING_SHARE:
        operator = _strayed(operator, rng)
    table = operator.lookup_table()
    start = np.stack([apply_lookup_table(tile, table) for tile in source])
    truth = _glass_kept(truth, start, source, operator) if is_he else start
    return RecolouredPair(source, start, truth, target, operator)


def _strayed(operator: ColourOperator, rng: np.random.Generator) -> ColourOperator:
    """Return an operator that misses a little, as the head does on tissue it has not seen."""
    mixing = np.diag(np.exp(rng.normal(0, STRAYING_GAIN, 3)))
    mixing += rng.normal(0, STRAYING_MIXING, (3, 3))
    coefficients = operator.coefficients @ mixing
    return replace(operator, coefficients=coefficients, gains=operator.gains * np.diag(mixing))


def _draw_maps(second: Recolouring, rng: np.random.Generator) -> RecolouringBatch:
    """Return two recolourings as a batch: of all tissue, and of its nuclei."""
    if rng.random() >= NUCLEAR_SHARE:
        return stack([second, second])
    factors = np.exp(rng.normal(0, NUCLEAR_STRENGTH) + rng.normal(0, NUCLEAR_HUE, 3))
    mixing = np.diag(factors) + rng.normal(0, NUCLEAR_MIXING, (3, 3))
    return stack([second, replace(second, swap=second.swap @ mixing)])


def _recoloured(tiles: Tensor, labels: Tiles, maps: RecolouringBatch) -> Tensor:
    """Recolour (n, H, W, 3) RGB in [0, 255], nuclei by the second map."""
    od = rgb_to_od(tiles).flatten(0, 2)
    whole, nuclear = maps.apply_to_od(od.expand(2, -1, -1)).unbind(0)
    mask = torch.from_numpy((labels == NUCLEI).astype(np.float32))[:, None]
    for _ in range(2):
        mask = F.avg_pool2d(mask, EDGE_PX, 1, EDGE_PX // 2, count_include_pad=False)
    mixed = torch.lerp(whole, nuclear, mask.flatten()[:, None])
    return od_to_rgb(mixed.clamp(0.0, MAX_OD)).view_as(tiles)


def _glass_kept(truth: Tiles, start: Tiles, source: Tiles, operator: ColourOperator) -> Tiles:
    """Fade the truth into the start where the source turns from tissue to glass."""
    white_od = -np.log((operator.white + 1.0) / 256.0)
    shown = -np.log((source + 1.0) / 256.0)
    tissue = glass_to_tissue(shown - white_od)[..., None]
    return np.rint(start + tissue * (truth.astype(np.float64) - start)).astype(np.uint8)


def _with_noise(tiles: Tiles, rng: np.random.Generator) -> Tensor:
    """Return (1, n, H, W, 3) float tiles, every other set with a little sensor noise."""
    level = rng.uniform(0, NOISE_LEVELS) * (rng.random() < NOISY_SHARE)
    noise = level * rng.standard_normal(tiles.shape, dtype=np.float32)
    return torch.from_numpy(np.clip(tiles + noise, 0, 255).astype(np.float32))[None]


def _to_uint8(tiles: Tensor) -> Tiles:
    return tiles.round().clamp(0, 255).to(torch.uint8).numpy()


def row(tiles: Tiles) -> Tiles:
    """Put (n, H, W, 3) tiles side by side: (H, n W, 3)."""
    return np.concatenate(list(tiles), axis=1)
