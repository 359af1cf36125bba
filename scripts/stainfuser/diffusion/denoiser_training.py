"""ControlNet and UNet learn: first the latent objective, then the pixels of the one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from torch import Tensor, nn

from stainfuser.diffusion.diffusion_phase import Denoiser, diffusion_loss
from stainfuser.diffusion.examples import Examples
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.optimization import (
    Judge,
    OptimizationParameters,
    Row,
    Validate,
    optimize,
)
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.pixel_phase import pixel_loss

# Validation while training: this many batches of each kind, always the same.
VALIDATION_BATCHES = 2
LossOf = Callable[[nn.Module, int, int], Tensor]


@dataclass(frozen=True)
class TrainingData:
    """Examples to learn from, and by what is new in them those that are only measured on."""

    train: Examples
    held_out: Mapping[str, Examples]
    judge: Judge = mean
    """What makes of the losses on these the one that the best weights are chosen by."""


def train_denoiser(
    pipeline: StainFuserPipeline,
    data: TrainingData,
    phases: tuple[OptimizationParameters, OptimizationParameters],
    accelerator: Any,
    work_dir: Path,
    seed: int,
) -> list[Row]:
    """Train the weights of ControlNet and UNet that require a gradient; the VAE is frozen.

    `phases` say how the latent objective and the pixels are optimised; a phase without steps is
    left out. Each leaves the weights that did best on what is held out.
    """
    pipeline.vae.requires_grad_(False)
    objective = objective_named(pipeline.config.objective)
    denoiser = Denoiser(pipeline.unet, pipeline.controlnet)
    rows: list[Row] = []
    for phase, make_loss in zip(phases, (diffusion_loss, pixel_loss), strict=True):
        if phase.steps == 0:
            continue
        loss_of = make_loss(pipeline, objective, data.train, seed)
        held_out = {
            name: make_loss(pipeline, objective, examples, seed)
            for name, examples in data.held_out.items()
        }
        rows += optimize(
            denoiser,
            per_process(loss_of, accelerator),
            phase,
            accelerator,
            work_dir / phase.phase,
            validate=_validation(held_out) if held_out else None,
            judge=data.judge,
        )
    return rows


def per_process(loss_of: LossOf, accelerator: Any) -> LossOf:
    """Let several processes draw different batches of the same step."""
    count, index = accelerator.num_processes, accelerator.process_index
    return lambda module, step, micro: loss_of(module, step, micro * count + index)


def _validation(losses: Mapping[str, LossOf]) -> Validate:
    """Return module → mean loss of fixed batches of each kind."""

    def validate(module: nn.Module) -> dict[str, float]:
        streams = range(VALIDATION_BATCHES)
        return {
            name: float(np.mean([float(loss_of(module, 0, stream)) for stream in streams]))
            for name, loss_of in losses.items()
        }

    return validate
