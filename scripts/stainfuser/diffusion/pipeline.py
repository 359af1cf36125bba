"""`StainFuserPipeline`: source and target images in, the source in the target's stain out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from torch import Tensor

from stainfuser import __version__
from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.encoding import (
    encode_start,
    encode_target,
    join_targets,
    to_range,
)
from stainfuser.diffusion.images import collected, image_list, reflect_pad
from stainfuser.diffusion.model_folder import (
    align,
    check_component,
    check_finite,
    read_model_index,
)
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.published import PublishedLayout
from stainfuser.diffusion.sampling import class_labels, control_image, denoise, predict
from stainfuser.errors import InputError
from stainfuser.nn.stain_statistics import StainStatistics, stain_statistics
from stainfuser.nn.token_attention import WeightedTokenProcessor

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


@dataclass
class StainFuserOutput(BaseOutput):
    """`images`: as `output_type` says; "np" is (N, H, W, 3) uint8, a list if the sizes differ."""

    images: Any


class StainFuserPipeline(PublishedLayout, DiffusionPipeline):
    """Conditional latent diffusion for stain normalisation.

    The source's pixels steer the structure through a ControlNet; the target's VAE latents are the
    tokens of the cross-attention, in place of text.

    Parameters
    ----------
    vae, unet, controlnet, scheduler
        diffusers components; UNet and ControlNet project tokens (`encoder_hid_dim`).
    preset, objective
        Architecture ("compact", "sd21") and what it was trained to predict (see `objectives`).
    mpp
        Micrometres per px the model was trained at; None if it is not known.
    patch_size
        Side of its training images, px.
    context_tokens
        Tokens a target is summarised to; None: all of them.
    start
        Objective bridge: "source", or "statistics" for the source with the target's mean and
        covariance of optical density.
    target_range, control_range
        What the VAE sees of the target and the ControlNet of the source: "zero_one" (published
        weights) or "minus_one_one". Images the VAE encodes as content are always [-1, 1].
    control_unshuffle
        Side of the pixel blocks folded into channels for the ControlNet.
    software_version
        Version of this package that trained the model.
    """

    model_cpu_offload_seq = "vae->controlnet->unet->vae"

    def __init__(
        self,
        vae: Any,
        unet: Any,
        controlnet: Any,
        scheduler: Any,
        preset: str = "compact",
        objective: str = "bridge",
        mpp: float | None = None,
        patch_size: int = 256,
        context_tokens: int | None = None,
        start: str = "source",
        target_range: str = "minus_one_one",
        control_range: str = "minus_one_one",
        control_unshuffle: int = 1,
        software_version: str = __version__,
    ) -> None:
        super().__init__()
        objective_named(objective)
        self.register_modules(vae=vae, unet=unet, controlnet=controlnet, scheduler=scheduler)
        self.register_to_config(
            preset=preset,
            objective=objective,
            mpp=mpp,
            patch_size=patch_size,
            context_tokens=context_tokens,
            start=start,
            target_range=target_range,
            control_range=control_range,
            control_unshuffle=control_unshuffle,
            software_version=software_version,
        )
        for network in (unet, controlnet):
            network.set_attn_processor(WeightedTokenProcessor())
        for module in (vae, unet, controlnet):
            module.eval()
        self.set_progress_bar_config(disable=None)

    @classmethod
    def from_pretrained(cls, folder: str | Path, **keywords: Any) -> StainFuserPipeline:
        """Load a model folder; the keywords are those of `DiffusionPipeline.from_pretrained`.

        Raises `InputError` if the folder is missing, incomplete, damaged, of another architecture
        or holds weights that are not finite.
        """
        folder = Path(folder)
        index = read_model_index(folder, cls.__name__)
        components = {k: v for k, v in index.items() if isinstance(v, list) and k != "scheduler"}
        for name, (library, class_name) in components.items():
            if keywords.get(name) is None:
                check_component(folder / name, library, class_name)
        keywords = {"local_files_only": True, "use_safetensors": True, **keywords}
        pipeline = super().from_pretrained(str(folder), **keywords)
        for name in components:
            module = getattr(pipeline, name)
            check_finite(module, folder / name)
            align(module)
        return pipeline

    @property
    def latent_factor(self) -> int:
        """Pixels per latent along a side."""
        config = self.vae.config
        return config.get("patch_px") or 2 ** (len(config.block_out_channels) - 1)

    @property
    def size_multiple(self) -> int:
        """Tiles are padded to a multiple of this side, px."""
        return self.latent_factor * 2 ** (len(self.unet.config.block_out_channels) - 1)

    @torch.no_grad()
    def encode_target(self, images: Any) -> StainTarget:
        """Encode one or more target images once, for any number of calls.

        Accepts what the call accepts. A large image is seen through up to 16 windows spread over
        it (one central window without `context_tokens`), never resized.
        """
        config = self.config
        return join_targets(
            [
                encode_target(
                    self.vae, image, self.latent_factor, config.target_range, config.context_tokens
                )
                for image in image_list(images, "target")
            ]
        )

    @torch.no_grad()
    def __call__(
        self,
        source: Any,
        target: Any,
        num_inference_steps: int | None = None,
        generator: torch.Generator | int | None = None,
        output_type: str = "pil",
        latents: Tensor | None = None,
        batch_size: int = 8,
        source_statistics: StainTarget | None = None,
    ) -> StainFuserOutput:
        """Render every source in the stain of its target.

        Parameters
        ----------
        source
            (H, W, 3) or (N, H, W, 3) uint8, PIL, float tensor (N, 3, H, W) in [0, 1], or a list of
            these; any height and width (mirrored to a multiple inside, cropped after).
        target
            The same, or what `encode_target` returned; one for all sources, or one for each.
        num_inference_steps
            Network calls (PNDM makes one more); None: as the objective was trained for.
        generator
            Seed or generator of the initial noise; None: seed 0. All tiles get the same noise, so
            that a tile's result depends neither on its neighbours nor on `batch_size`.
        output_type
            "pil", "np" (uint8), "pt" (float in [0, 1]) or "latent" (padding included).
        latents
            (1 or N, C, h, w) where sampling starts, in place of noise or the source.
        batch_size
            Tiles per network call on an accelerator; a CPU takes tiles one by one.
        source_statistics
            `encode_target` of tiles of the slide the sources come from; their mean statistics
            take the place of each tile's own, so that a slide's tiles get one colour change.

        Raises
        ------
        InputError
            For an argument that is not what is described here.
        """
        sources = image_list(source, "source")
        steps = self._checked_steps(num_inference_steps, output_type, batch_size)
        encoded = target if isinstance(target, StainTarget) else self.encode_target(target)
        encoded = encoded.to(self.unet.device)
        _check_count("target", len(encoded), len(sources))
        if latents is not None:
            _check_count("latents", len(latents), len(sources))
        seed = _initial_seed(generator)
        pooled = None if source_statistics is None else source_statistics.statistics.pooled()
        results: list[Tensor] = []
        with self.progress_bar(total=len(sources)) as bar:
            for chunk in self._chunks(sources, batch_size):
                tiles = torch.stack([sources[i] for i in chunk]).to(self.unet.device)
                targets = encoded.select([i if len(encoded) > 1 else 0 for i in chunk])
                start = None
                if latents is not None:
                    start = latents[[i if len(latents) > 1 else 0 for i in chunk]]
                clean = self._sample(tiles, targets, steps, seed, start, pooled)
                results.extend(self._as_output(clean, tiles.shape[-2:], output_type))
                bar.update(len(chunk))
        return StainFuserOutput(images=collected(results, output_type))

    def _sample(
        self,
        tiles: Tensor,
        target: StainTarget,
        steps: int,
        seed: int,
        start: Tensor | None,
        statistics: StainStatistics | None,
    ) -> Tensor:
        """(N, 3, H, W) in [0, 1] → clean latents (N, C, h, w) of the padded tiles."""
        own = stain_statistics(tiles)
        if statistics is not None:
            own = statistics.to(tiles.device).select([0] * len(tiles))
        padded = reflect_pad(tiles, self.size_multiple)
        if start is None:
            start = self._start(padded, own, target, seed)
        control = to_range(padded, self.config.control_range).to(self.unet.dtype)
        control = control_image(control, self.config.control_unshuffle)
        labels = class_labels(self.unet, own, target, self.config.start)

        def call(sample: Tensor, timestep: Tensor) -> Tensor:
            times = timestep.expand(len(sample))
            return predict(self.unet, self.controlnet, sample, times, control, target, labels)

        return denoise(call, self.scheduler, start.to(control), steps)

    def _start(
        self, padded: Tensor, own: StainStatistics, target: StainTarget, seed: int
    ) -> Tensor:
        """Return where sampling starts: noise, or the latents of the source."""
        objective = objective_named(self.config.objective)
        if objective.starts_from == "source":
            return encode_start(self.vae, padded, own, target.statistics, self.config.start)
        height, width = (side // self.latent_factor for side in padded.shape[-2:])
        shape = (1, self.unet.config.in_channels, height, width)
        # Drawn on the CPU: the same noise on every device.
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return noise.to(padded.device).expand(len(padded), -1, -1, -1)

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

    def _checked_steps(self, steps: int | None, output_type: str, batch_size: int) -> int:
        if output_type not in OUTPUT_TYPES:
            raise InputError(
                "output_type",
                f"{output_type!r} is unknown",
                f"choose one of {', '.join(OUTPUT_TYPES)}",
            )
        steps = objective_named(self.config.objective).default_steps if steps is None else steps
        for name, value in (("num_inference_steps", steps), ("batch_size", batch_size)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(name, f"{value!r} is not a positive integer", "pass 1 or more")
        return steps


def _initial_seed(generator: torch.Generator | int | None) -> int:
    if isinstance(generator, torch.Generator):
        # Drawing moves the generator on, so that two calls with it differ, as usual.
        return int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())
    return 0 if generator is None else int(generator)


def _check_count(name: str, found: int, sources: int) -> None:
    if found not in (1, sources):
        raise InputError(
            name, f"{found} for {sources} sources", "pass one for all, or one for each source"
        )
