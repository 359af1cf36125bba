"""Random changes of stain that keep training pairs exact.

A pair is (source, target, stylised), the stylised image being the source's tissue in the target's
stain. One smooth colour map applied to target and stylised image alike gives another exact pair
with a new target stain; a map applied to the source alone gives a new source stain. So a dozen
stains stand for as many as are drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stainfuser.nn.stain_statistics import optical_density, transmitted

MAX_OD = 5.5
# A map whose result is darker, lighter or flatter than tissue gets is not used.
MEAN_RANGE = (0.2, 0.94)
LEAST_DEVIATION = 0.03


@dataclass(frozen=True)
class StainMaps:
    """Per image: `matrix` (N, 3, 3), `square` (N, 3, 3), `offset` (N, 3), `gamma` (N, 3)."""

    matrix: Tensor
    square: Tensor
    offset: Tensor
    gamma: Tensor

    def __call__(self, rgb: Tensor) -> Tensor:
        """Recolour (N, 3, H, W) RGB in [0, 1]."""
        od = optical_density(rgb)
        toned = od.clamp(min=1e-4) ** self.gamma[..., None, None]
        flat = toned.flatten(2)
        moved = self.matrix @ flat + self.square @ flat.square() + self.offset[..., None]
        return transmitted(moved.view_as(od).clamp(0.0, MAX_OD))

    def select(self, row: int) -> StainMaps:
        """Return one image's map."""
        return StainMaps(*(tensor[row : row + 1] for tensor in vars(self).values()))

    def where(self, keep: Tensor) -> StainMaps:
        """Return the maps with the identity in place of those that `keep` (N,) leaves out."""
        other = identity_maps(len(keep))
        chosen = [
            torch.where(keep.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)
            for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)
        ]
        return StainMaps(*chosen)


def identity_maps(count: int) -> StainMaps:
    """Return maps that change nothing."""
    return StainMaps(
        matrix=torch.eye(3).repeat(count, 1, 1),
        square=torch.zeros(count, 3, 3),
        offset=torch.zeros(count, 3),
        gamma=torch.ones(count, 3),
    )


def draw_stain_maps(
    rng: np.random.Generator, count: int, probability: float, strength: float
) -> StainMaps:
    """Draw one map per image; each is the identity with 1 - `probability`."""

    def normal(scale: float, *shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(0.0, scale * strength, (count, *shape))).float()

    maps = StainMaps(
        matrix=torch.diag_embed(normal(0.25, 3).exp()) + normal(0.1, 3, 3),
        square=normal(0.04, 3, 3),
        offset=normal(0.03, 3).abs(),
        gamma=normal(0.1, 3).exp(),
    )
    return maps.where(torch.from_numpy(rng.random(count) < probability))


def is_realistic(rgb: Tensor) -> Tensor:
    """Say of each of (N, 3, H, W) images in [0, 1] whether it could be a photograph of tissue."""
    mean, deviation = rgb.mean(dim=(1, 2, 3)), rgb.std(dim=(1, 2, 3))
    return (mean > MEAN_RANGE[0]) & (mean < MEAN_RANGE[1]) & (deviation > LEAST_DEVIATION)
