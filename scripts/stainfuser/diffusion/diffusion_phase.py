"""Second phase: ControlNet and UNet learn to render the source in the target's stain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.encoding import encode_latents, to_range
from stainfuser.diffusion.examples import ExampleBatch, Examples
from stainfuser.diffusion.objectives import Objective, TrainingExample
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.sampling import control_image, predict
from stainfuser.seeds import generator


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


def diffusion_loss(
    pipeline: StainFuserPipeline, objective: Objective, examples: Examples, seed: int
) -> Callable[[nn.Module, int, int], Tensor]:
    """Return the loss of a step, see `Objective.example` and `Objective.loss`."""
    scheduler = objective.make_scheduler()

    def loss_of(denoiser: nn.Module, step: int, stream: int) -> Tensor:
        batch = examples.draw(step, stream).to(pipeline.unet.device)
        rng = generator(seed, "noise", step, stream)
        uniform = torch.from_numpy(rng.random(len(batch.source), "float32"))
        with torch.no_grad():
            example = noised(pipeline, objective, scheduler, batch, rng, uniform)
        prediction = denoiser(example.sample, example.timesteps, *conditions(pipeline, batch))
        return objective.loss(prediction.float(), example.answer)

    return loss_of


def noised(
    pipeline: StainFuserPipeline,
    objective: Objective,
    scheduler: Any,
    batch: ExampleBatch,
    rng: Any,
    uniform: Tensor,
) -> TrainingExample:
    """Return what the network is shown at the times `uniform` (N,) in [0, 1), and the answer."""
    clean, first = batch.clean, batch.first
    if clean is None:
        clean = encode_latents(pipeline.vae, to_range(batch.stylized, "minus_one_one"))
        first = encode_latents(pipeline.vae, to_range(batch.start, "minus_one_one"))
    clean, first = clean.float(), first.float()
    noise = torch.from_numpy(rng.standard_normal(clean.shape, "float32")).to(clean.device)
    return objective.example(clean, first, noise, uniform.to(clean.device), scheduler)


def conditions(
    pipeline: StainFuserPipeline, batch: ExampleBatch
) -> tuple[Tensor, StainTarget, Tensor | None]:
    """Return what steers the network besides sample and time: control, target, labels."""
    config = pipeline.config
    control = control_image(to_range(batch.source, config.control_range), config.control_unshuffle)
    return control, batch.target, batch.labels
