"""Batches of training pairs: crops, recoloured at random, and what shows their stains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stainfuser.diffusion.augmentation import StainMaps, draw_stain_maps, is_realistic
from stainfuser.diffusion.images import to_uint8
from stainfuser.diffusion.operator_start import find_operator
from stainfuser.diffusion.pairs import PairImages, as_tensor, draw_rows
from stainfuser.seeds import generator
from stainfuser.stain.operators import ColourOperator

# While training, statistics and tokens are taken from every fourth patch along both sides.
MOSAIC_STEP = 4


@dataclass(frozen=True)
class PairBatch:
    """Tensors in [0, 1]: `source`, `stylized` (N, 3, c, c) at one place; whole images for stain."""

    source: Tensor
    stylized: Tensor
    source_stain: Tensor
    target_stain: Tensor
    operators: tuple[ColourOperator, ...] = ()
    """From each source to its target, where an operator head says it."""

    def to(self, device: Any) -> PairBatch:
        """Return the batch on a device."""
        tensors = (self.source, self.stylized, self.source_stain, self.target_stain)
        return PairBatch(*(tensor.to(device) for tensor in tensors), self.operators)


@dataclass(frozen=True)
class Crop:
    """A square of an image, its side a multiple `scale` of the crop's."""

    top: int
    left: int
    side: int
    scale: int
    quarter_turns: int
    flip: bool

    def __call__(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 3, side / scale, side / scale)."""
        cut = images[..., self.top : self.top + self.side, self.left : self.left + self.side]
        cut = F.avg_pool2d(cut, self.scale) if self.scale > 1 else cut
        cut = torch.rot90(cut, self.quarter_turns, (2, 3))
        return cut.flip(3) if self.flip else cut


class PairSampler:
    """Draws batches from (seed, step, stream) alone.

    Parameters
    ----------
    images, rows
        Pixels and the (P, 2) pairs to draw from.
    seed, batch_size, crop_px
        As in the configuration; crops are shared by source and stylised image.
    mosaic_px
        The whole images' stain is seen through every fourth patch of this side, px; 0: through a
        random crop of each, as published.
    half_resolution
        Probability that a sample is taken from twice the area and averaged down.
    probability, strength
        Of the stain augmentation.
    head
        Operator head that is asked for the operator of every pair, or None.
    """

    def __init__(
        self,
        images: PairImages,
        rows: np.ndarray,
        *,
        seed: int,
        batch_size: int,
        crop_px: int,
        mosaic_px: int,
        half_resolution: float,
        probability: float,
        strength: float,
        head: Any = None,
    ) -> None:
        self._images, self._rows, self._seed = images, rows, seed
        self._batch_size, self._crop_px, self._mosaic_px = batch_size, crop_px, mosaic_px
        self._half_resolution = half_resolution if images.image_px >= 2 * crop_px else 0.0
        self._probability, self._strength = probability, strength
        self._head = head

    def draw(self, step: int, stream: int = 0) -> PairBatch:
        """Return the batch of one step."""
        rng = generator(self._seed, "pairs", step, stream)
        rows = draw_rows(self._rows, self._batch_size, self._seed, step, stream)
        sources, stylized = self._images.sources(rows), self._images.stylized(rows)
        targets = self._images.targets(rows)
        scales = 1 + (rng.random(len(rows)) < self._half_resolution)
        crops = [self._draw_crop(int(scale), rng) for scale in scales]
        others = [self._draw_crop(int(scale), rng) for scale in scales]
        source = self._cut_all(sources, crops)
        batch = PairBatch(
            source=source,
            stylized=self._cut_all(stylized, crops),
            source_stain=self._mosaics(sources) if self._mosaic_px else source,
            target_stain=(
                self._mosaics(targets) if self._mosaic_px else self._cut_all(targets, others)
            ),
        )
        ours, theirs = self._draw_maps(batch, rng)
        return PairBatch(
            source=ours(batch.source),
            stylized=theirs(batch.stylized),
            source_stain=ours(batch.source_stain),
            target_stain=theirs(batch.target_stain),
            operators=self._operators(sources, targets, ours, theirs) if self._head else (),
        )

    def _draw_crop(self, scale: int, rng: np.random.Generator) -> Crop:
        side = self._crop_px * scale
        top, left = (int(rng.integers(0, self._images.image_px - side + 1)) for _ in range(2))
        return Crop(top, left, side, scale, int(rng.integers(4)), bool(rng.integers(2)))

    def _cut_all(self, images: list[np.ndarray], crops: list[Crop]) -> Tensor:
        """Return (N, 3, c, c), every image cut by its crop."""
        pairs = zip(images, crops, strict=True)
        return torch.cat([crop(as_tensor([image])) for image, crop in pairs])

    def _mosaics(self, images: list[np.ndarray]) -> Tensor:
        return patch_mosaic(as_tensor(images), self._mosaic_px)

    def _draw_maps(self, batch: PairBatch, rng: np.random.Generator) -> tuple[StainMaps, StainMaps]:
        """Return how sources, and how targets with their stylised images, are recoloured."""
        count = len(batch.source)
        ours = draw_stain_maps(rng, count, self._probability, self._strength)
        ours = ours.where(is_realistic(ours(batch.source_stain)))
        theirs = draw_stain_maps(rng, count, self._probability, self._strength)
        theirs = theirs.where(
            is_realistic(theirs(batch.target_stain)) & is_realistic(theirs(batch.stylized))
        )
        return ours, theirs

    def _operators(
        self,
        sources: list[np.ndarray],
        targets: list[np.ndarray],
        ours: StainMaps,
        theirs: StainMaps,
    ) -> tuple[ColourOperator, ...]:
        """Ask the head about whole images, recoloured as their crops are."""
        operators = []
        for row, pair in enumerate(zip(sources, targets, strict=True)):
            source, target = (
                to_uint8(maps.select(row)(as_tensor([image]))[0])
                for image, maps in zip(pair, (ours, theirs), strict=True)
            )
            operators.append(find_operator(self._head, [source], self._head.summarise([target])))
        return tuple(operators)


def patch_mosaic(images: Tensor, patch_px: int) -> Tensor:
    """Keep every fourth patch along both sides of (N, 3, H, W); tiny images stay whole."""
    height, width = images.shape[-2:]
    if min(height, width) < 2 * MOSAIC_STEP * patch_px:
        return images[..., : height // patch_px * patch_px, : width // patch_px * patch_px]
    for dim, side in ((-2, height), (-1, width)):
        patches = torch.arange(0, side // patch_px, MOSAIC_STEP)
        index = (patches[:, None] * patch_px + torch.arange(patch_px)).flatten()
        images = images.index_select(dim, index)
    return images
