"""The diffusion part of a pipeline: tiles through VAE, ControlNet and UNet, and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from stainfuser.diffusion.call_arguments import check_count
from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.encoding import encode_start, to_range
from stainfuser.diffusion.images import reflect_pad
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.operator_mode import (
    SlideFit,
    apply_operator,
    colour_operator,
    hold_to_trust,
)
from stainfuser.diffusion.operator_start import START, start_statistics
from stainfuser.diffusion.sampling import (
    class_labels,
    control_image,
    denoise,
    predict,
    remembered_context,
)
from stainfuser.nn.operator_safety import Solution
from stainfuser.nn.stain_statistics import StainStatistics, stain_statistics


@dataclass(frozen=True)
class RenderCall:
    """What a call asks of every tile it renders."""

    steps: int
    seed: int
    latents: Tensor | None
    slide: SlideFit | None
    output_type: str


class TileRendering:
    """What a pipeline with a diffusion part does with tiles; mixed into `StainFuserPipeline`."""

    vae: Any
    unet: Any
    controlnet: Any
    scheduler: Any
    config: Any

    @property
    def latent_factor(self) -> int:
        """Pixels per latent along a side."""
        config = self.vae.config
        return config.get("patch_px") or 2 ** (len(config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """Tiles are padded to a multiple of this side, px."""
        return self.latent_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    def _render(
        self,
        sources: list[Tensor],
        target: StainTarget,
        solutions: list[Solution] | None,
        batch_size: int,
        call: RenderCall,
        bar: Any,
    ) -> list[Tensor]:
        """Send the sources through the diffusion part in batches of one size."""
        if call.latents is not None:
            check_count("latents", len(call.latents), len(sources))
        results: list[Tensor] = []
        for chunk in self._chunks(sources, batch_size):
            tiles = torch.stack([sources[i] for i in chunk]).to(self.unet.device)
            targets = target.select([i if len(target) > 1 else 0 for i in chunk])
            own = None if solutions is None else [solutions[i] for i in chunk]
            first = self._first(tiles, own)
            clean = self._sample(tiles, first, targets, own, call, chunk)
            images = self._as_output(clean, tiles.shape[-2:], call.output_type)
            if own is not None and call.output_type != "latent":
                # An operator's result is held to its trust already; what is added to it is not.
                images = [hold_to_trust(*parts) for parts in zip(first, images, own, strict=True)]
            results.extend(images)
            bar.update(len(chunk))
        return results

    def _first(self, tiles: Tensor, solutions: list[Solution] | None) -> Tensor:
        """Return what the diffusion part begins with: the tiles, or the operators' results."""
        if self.config.start != START:
            return tiles
        assert solutions is not None
        mapped = []
        for tile, solution in zip(tiles, solutions, strict=True):
            is_trusted = solution.diagnostics["trust"] > 0
            mapped.append(apply_operator(tile, solution) if is_trusted else tile)
        return torch.stack([image.to(tiles.device) for image in mapped])

    def _sample(
        self,
        tiles: Tensor,
        first: Tensor,
        target: StainTarget,
        solutions: list[Solution] | None,
        call: RenderCall,
        chunk: list[int],
    ) -> Tensor:
        """(N, 3, H, W) in [0, 1] → clean latents (N, C, h, w) of the padded tiles."""
        own = stain_statistics(tiles)
        if call.slide is not None:
            own = call.slide.statistics.to(tiles.device).select([0] * len(tiles))
        if self.config.start == START:
            assert solutions is not None
            own = start_statistics(own, [colour_operator(solution) for solution in solutions])
        padded, first = (reflect_pad(image, self.size_multiple) for image in (tiles, first))
        if call.latents is None:
            start = self._start(first, own, target, call.seed)
        else:
            start = call.latents[[i if len(call.latents) > 1 else 0 for i in chunk]]
        control = to_range(padded, self.config.control_range).to(self.unet.dtype)
        control = control_image(control, self.config.control_unshuffle)
        labels = class_labels(self.unet, own, target, self.config.start)

        def predicted(sample: Tensor, timestep: Tensor) -> Tensor:
            times = timestep.expand(len(sample))
            return predict(self.unet, self.controlnet, sample, times, control, target, labels)

        with remembered_context(self.unet, self.controlnet):
            return denoise(predicted, self.scheduler, start.to(control), call.steps)

    def _start(self, first: Tensor, own: StainStatistics, target: StainTarget, seed: int) -> Tensor:
        """Return where sampling starts: noise, or the latents of the padded images `first`."""
        objective = objective_named(self.config.objective)
        if objective.starts_from == "source":
            return encode_start(self.vae, first, own, target.statistics, self.config.start)
        height, width = (side // self.latent_factor for side in first.shape[-2:])
        shape = (1, self.unet.config.in_channels, height, width)
        # Drawn on the CPU: the same noise on every device.
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(first.device).expand(len(first), -1, -1, -1)

    def _as_output(self, clean: Tensor, size_px: torch.Size, output_type: str) -> list[Tensor]:
        """Decode, crop the padding away and map to [0, 1]; latents stay as they are."""
        if output_type == "latent":
            return list(clean)
        scaled = (clean / self.vae.config.scaling_factor).to(self.vae.dtype)
        decoded = self.vae.decode(scaled).sample[..., : size_px[0], : size_px[1]]
        return list((decoded.float() / 2.0 + 0.5).clamp(0.0, 1.0))

    def _chunks(self, sources: list[Tensor], batch_size: int) -> Iterator[list[int]]:
        """Yield indices of neighbours of equal size, at most `batch_size` at once."""
        # On a CPU a batch is hardly faster, and one by one the result is the same to the bit.
        largest = 1 if self.unet.device.type == "cpu" else batch_size
        for _, group in groupby(range(len(sources)), key=lambda i: sources[i].shape):
            members = list(group)
            yield from (members[i : i + largest] for i in range(0, len(members), largest))
