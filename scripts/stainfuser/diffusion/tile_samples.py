"""Tiles as a few sampled pixels each, with what an encoder makes of them: stored once.

The classes of a pixel follow from the tissue around it and hardly change with the stain; its colour
does. So a tile is encoded once, in a few stains, and then recoloured as often as training likes, at
the cost of its sampled pixels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from stainfuser.nn.class_statistics import (
    MOMENTS,
    UPPER,
    ClassStatistics,
    halved,
    moment_sums,
)
from stainfuser.nn.colour_moments import TISSUE_MOMENTS, ColourMoments, tissue_moments
from stainfuser.nn.od_torch import rgb_to_od
from stainfuser.nn.operator_head import OperatorHead

# A pixel, its right and its lower neighbour, at half the resolution: colours and gradients.
HERE, RIGHT, BELOW = 0, 1, 2


@dataclass(frozen=True)
class TileSamples:
    """T tiles, P pixels of each, seen in V stains; as float16, to keep many.

    `od` (T, 3, P, 3) of `HERE`, `RIGHT`, `BELOW` in the tile's own stain; `logits` (T, V, K, P) and
    `group_logits` (T, V, 3, P) of classes and named groups; `context` (T, V, F) float32; `labels`
    (T, P) uint8.
    """

    od: Tensor
    logits: Tensor
    group_logits: Tensor
    context: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.od)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the tiles of all parts."""
        names = [field.name for field in fields(cls)]
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


@torch.no_grad()
def sample_tile(
    head: OperatorHead, tile: Tensor, looks: Tensor, labels: Tensor, places: Tensor
) -> TileSamples:
    """Return one tile's samples.

    Parameters
    ----------
    tile
        (H, W, 3) float RGB in [0, 255], even sides.
    looks
        (V, H, W, 3): the same tissue in the stains that it is encoded in.
    labels
        (H, W): weak labels.
    places
        (P,): see `draw_places`.
    """
    images = looks.permute(0, 3, 1, 2).contiguous()
    encoded = head.encode(images, ColourMoments(tissue_moments(rgb_to_od(images))))
    look = head.embed_context(encoded.context, torch.ones(len(images)))
    logits = [field.flatten(2)[..., places] for field in head.classify(encoded, look)]
    return TileSamples(
        sampled_od(tile, places)[None].half(),
        *(field[None].half() for field in logits),
        encoded.context[None],
        labels[::2, ::2].flatten()[places][None],
    )


def draw_places(tile_px: int, count: int, seed: int) -> Tensor:
    """Return (count,) places among the half-size pixels, none in the last row or column."""
    side = tile_px // 2
    rng = torch.Generator().manual_seed(seed)
    inner = torch.randperm((side - 1) ** 2, generator=rng)[:count]
    return inner // (side - 1) * side + inner % (side - 1)


def sampled_od(tile: Tensor, places: Tensor) -> Tensor:
    """Return (3, P, 3): optical densities of an (H, W, 3) tile at half its resolution."""
    od = halved(rgb_to_od(tile).permute(2, 0, 1)[None])[0]
    width = od.shape[-1]
    flat = od.flatten(1)
    return torch.stack([flat[:, places + step].T for step in (0, 1, width)])


def sampled_statistics(
    od: Tensor, logits: Tensor, group_logits: Tensor, context: Tensor, weights: Tensor | None = None
) -> ClassStatistics:
    """Return the statistics of B slides of n tiles: `ClassStatistics` but for the gradients.

    `od` (B, n, P, 3), `logits` (B, n, K, P), `group_logits` (B, n, 3, P), `context` (B, n, F);
    `weights` (B, n, P): how much tissue each pixel stands for.
    """
    slides, tiles = od.shape[:2]
    flat = od.flatten(0, 1)
    rows, columns = UPPER
    parts = [torch.ones_like(flat[..., :1]), flat, flat[..., rows] * flat[..., columns]]
    moments = torch.cat(parts, dim=-1)
    moments = F.pad(moments, (0, MOMENTS - moments.shape[-1]))
    counts = None
    if weights is not None:
        moments = moments * weights.flatten(0, 1)[..., None]
        counts = weights.flatten(0, 1)[..., None]
    sums = moment_sums(moments, flat.amax(-1), logits.flatten(0, 1), group_logits.flatten(0, 1))
    colours = tissue_moments(flat.transpose(1, 2)[..., None], counts)
    colours = colours.unflatten(0, (slides, tiles))
    context = torch.cat([context[..., :-TISSUE_MOMENTS], colours], dim=-1)
    classes, groups = (part.unflatten(0, (slides, tiles)).sum(1) for part in sums)
    return ClassStatistics(torch.full((slides,), float(tiles)), context.sum(1), classes, groups)
