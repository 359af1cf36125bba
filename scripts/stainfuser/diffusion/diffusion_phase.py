"""Second phase: ControlNet and UNet learn to render the source in the target's stain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stainfuser.diffusion.augmentation import draw_stain_maps, is_realistic
from stainfuser.diffusion.context import StainTarget, flatten_tokens, reduce_tokens
from stainfuser.diffusion.encoding import encode_latents, encode_start, to_range
from stainfuser.diffusion.objectives import Objective
from stainfuser.diffusion.pairs import PairImages, as_tensor, draw_rows
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.sampling import class_labels, control_image, predict
from stainfuser.nn.stain_statistics import stain_statistics
from stainfuser.seeds import generator

# While training, statistics and tokens are taken from every fourth patch along both sides.
MOSAIC_STEP = 4


@dataclass(frozen=True)
class PairBatch:
    """Tensors in [0, 1]: `source`, `stylized` (N, 3, c, c) at one place; whole images for stain."""

    source: Tensor
    stylized: Tensor
    source_stain: Tensor
    target_stain: Tensor

    def to(self, device: Any) -> PairBatch:
        """Return the batch on a device."""
        return PairBatch(*(tensor.to(device) for tensor in vars(self).values()))


class Denoiser(nn.Module):
    """ControlNet and UNet as one module, which is what accelerate wraps."""

    def __init__(self, unet: nn.Module, controlnet: nn.Module) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(
        self, sample: Tensor, times: Tensor, control: Tensor, target: StainTarget, labels: Any
    ) -> Tensor:
        """See `sampling.predict`."""
        return predict(self.unet, self.controlnet, sample, times, control, target, labels)


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
    ) -> None:
        self._images, self._rows, self._seed = images, rows, seed
        self._batch_size, self._crop_px, self._mosaic_px = batch_size, crop_px, mosaic_px
        self._half_resolution = half_resolution if images.image_px >= 2 * crop_px else 0.0
        self._probability, self._strength = probability, strength

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
        return self._recoloured(batch, rng)

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

    def _recoloured(self, batch: PairBatch, rng: np.random.Generator) -> PairBatch:
        count = len(batch.source)
        ours = draw_stain_maps(rng, count, self._probability, self._strength)
        ours = ours.where(is_realistic(ours(batch.source_stain)))
        theirs = draw_stain_maps(rng, count, self._probability, self._strength)
        theirs = theirs.where(
            is_realistic(theirs(batch.target_stain)) & is_realistic(theirs(batch.stylized))
        )
        return PairBatch(
            source=ours(batch.source),
            stylized=theirs(batch.stylized),
            source_stain=ours(batch.source_stain),
            target_stain=theirs(batch.target_stain),
        )


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


def diffusion_loss(
    pipeline: StainFuserPipeline, objective: Objective, sampler: PairSampler, seed: int
) -> Callable[[nn.Module, int, int], Tensor]:
    """Return the loss of a step, see `Objective.example` and `Objective.loss`."""
    scheduler = objective.make_scheduler()

    def loss_of(denoiser: nn.Module, step: int, stream: int) -> Tensor:
        batch = sampler.draw(step, stream).to(pipeline.unet.device)
        with torch.no_grad():
            sample, arguments, answer = _example(
                pipeline, objective, scheduler, batch, generator(seed, "noise", step, stream)
            )
        return objective.loss(denoiser(sample, *arguments).float(), answer)

    return loss_of


def _example(
    pipeline: StainFuserPipeline,
    objective: Objective,
    scheduler: Any,
    batch: PairBatch,
    rng: np.random.Generator,
) -> tuple[Tensor, tuple[Any, ...], Tensor]:
    """Return the network's sample, its other arguments, and the answer."""
    config, vae = pipeline.config, pipeline.vae
    target = encode_stain(pipeline, batch.target_stain)
    own = stain_statistics(batch.source_stain)
    clean = encode_latents(vae, to_range(batch.stylized, "minus_one_one")).float()
    start = encode_start(vae, batch.source, own, target.statistics, config.start).float()
    noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32)).to(clean.device)
    uniform = torch.from_numpy(rng.random(len(clean), np.float32)).to(clean.device)
    example = objective.example(clean, start, noise, uniform, scheduler)
    control = control_image(to_range(batch.source, config.control_range), config.control_unshuffle)
    labels = class_labels(pipeline.unet, own, target, config.start)
    return example.sample, (example.timesteps, control, target, labels), example.answer


def encode_stain(pipeline: StainFuserPipeline, mosaic: Tensor) -> StainTarget:
    """Encode (N, 3, H, W) mosaics in [0, 1] as targets, as a batch."""
    config = pipeline.config
    latents = encode_latents(pipeline.vae, to_range(mosaic, config.target_range)).float()
    tokens, bias = flatten_tokens(latents), None
    if config.context_tokens is not None:
        tokens, bias = reduce_tokens(tokens, config.context_tokens)
    return StainTarget(tokens, bias, stain_statistics(mosaic))
