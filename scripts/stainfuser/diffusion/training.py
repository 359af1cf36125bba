"""Training from pairs to a pipeline: autoencoder, then ControlNet and UNet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stainfuser.diffusion.assemble import compact_pipeline, freeze_all_but, sd21_pipeline
from stainfuser.diffusion.autoencoder_phase import autoencoder_loss, prepare_autoencoder
from stainfuser.diffusion.diffusion_phase import Denoiser, PairSampler, diffusion_loss
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.optimization import OptimizationParameters, Row, optimize
from stainfuser.diffusion.pairs import PairImages, Split
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.logs import LOGGER

# Validation while training: this many batches, always the same.
VALIDATION_BATCHES = 2


@dataclass(frozen=True)
class TrainingParameters:
    """The training section of the configuration; see there for units and reasons."""

    preset: str
    base_model: str | None
    trained_unet_parts: tuple[str, ...]
    objective: str
    start: str
    context_tokens: int | None
    latent_patch_px: int
    latent_channels: int
    channels: tuple[int, ...]
    decoder_channels: int
    autoencoder_steps: int
    autoencoder_learning_rate: float
    steps: int
    batch_size: int
    crop_px: int
    half_resolution_probability: float
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    ema_decay: float
    max_gradient_norm: float
    gradient_accumulation: int
    stain_augmentation_probability: float
    stain_augmentation_strength: float
    checkpoint_steps: int

    def optimization(self, phase: str) -> OptimizationParameters:
        """Return how "autoencoder" or "diffusion" is optimised."""
        is_first = phase == "autoencoder"
        return OptimizationParameters(
            phase=phase,
            steps=self.autoencoder_steps if is_first else self.steps,
            learning_rate=self.autoencoder_learning_rate if is_first else self.learning_rate,
            warmup_steps=self.warmup_steps,
            weight_decay=self.weight_decay,
            ema_decay=self.ema_decay,
            max_gradient_norm=self.max_gradient_norm,
            gradient_accumulation=self.gradient_accumulation,
            checkpoint_steps=self.checkpoint_steps,
        )


@dataclass(frozen=True)
class TrainingResult:
    """The trained pipeline, how to make the one training began with, and all losses.

    `make_untrained` gives the same autoencoder with the first weights of ControlNet and UNet.
    """

    trained: StainFuserPipeline
    make_untrained: Callable[[], StainFuserPipeline]
    rows: list[Row]


def train_pipeline(
    images: PairImages,
    split: Split,
    parameters: TrainingParameters,
    accelerator: Any,
    work_dir: Path,
    seed: int,
    mpp: float | None,
) -> TrainingResult:
    """Train a preset; a killed run goes on from its last checkpoint in `work_dir`.

    Preset `compact` trains its autoencoder first; `sd21` has Stable Diffusion's.
    """

    def assemble() -> StainFuserPipeline:
        return _assemble(parameters, images.image_px, seed, mpp).to(accelerator.device)

    trained = assemble()
    rows: list[Row] = []
    if parameters.preset == "compact":
        rows += _train_autoencoder(
            trained.vae, images, split, parameters, accelerator, work_dir, seed
        )
    else:
        freeze_all_but(trained, parameters.trained_unet_parts)
    denoiser = Denoiser(trained.unet, trained.controlnet)
    rows += train_denoiser(
        denoiser, trained, images, split, parameters, accelerator, work_dir, seed
    )

    def make_untrained() -> StainFuserPipeline:
        untrained = assemble()
        untrained.vae.load_state_dict(trained.vae.state_dict())
        return untrained

    return TrainingResult(trained, make_untrained, rows)


def train_denoiser(
    denoiser: nn.Module,
    pipeline: StainFuserPipeline,
    images: PairImages,
    split: Split,
    parameters: TrainingParameters,
    accelerator: Any,
    work_dir: Path,
    seed: int,
) -> list[Row]:
    """Train the weights of ControlNet and UNet that require a gradient; the VAE is frozen."""
    pipeline.vae.requires_grad_(False)
    objective = objective_named(parameters.objective)
    # Several processes draw different batches of the same step.
    stream = accelerator.process_index
    train = _sampler(images, split["train"], parameters, seed, augment=True)
    loss_of = diffusion_loss(pipeline, objective, train, seed)
    return optimize(
        denoiser,
        lambda module, step, micro: loss_of(
            module, step, micro * accelerator.num_processes + stream
        ),
        parameters.optimization("diffusion"),
        accelerator,
        work_dir / "diffusion",
        validate=_validation(pipeline, images, split, parameters, seed),
    )


def _train_autoencoder(
    vae: Any,
    images: PairImages,
    split: Split,
    parameters: TrainingParameters,
    accelerator: Any,
    work_dir: Path,
    seed: int,
) -> list[Row]:
    prepare_autoencoder(vae, images, split["train"], parameters.crop_px, seed)
    loss_of = autoencoder_loss(
        images,
        split["train"],
        seed,
        parameters.batch_size,
        parameters.crop_px,
        parameters.stain_augmentation_strength,
    )
    options = parameters.optimization("autoencoder")
    return optimize(vae, loss_of, options, accelerator, work_dir / "autoencoder")


def _validation(
    pipeline: StainFuserPipeline,
    images: PairImages,
    split: Split,
    parameters: TrainingParameters,
    seed: int,
) -> Any:
    """Return module → mean loss on fixed batches nothing of which was trained on, or None."""
    parts = ("held_out_both", "held_out_targets", "held_out_sources")
    rows = next((split[part] for part in parts if len(split[part])), None)
    if rows is None:
        LOGGER.info("train: too few pairs to hold any out, so nothing is validated")
        return None
    sampler = _sampler(images, rows, parameters, seed, augment=False)
    loss_of = diffusion_loss(pipeline, objective_named(parameters.objective), sampler, seed)

    def validate(module: nn.Module) -> float:
        losses = [float(loss_of(module, 0, stream)) for stream in range(VALIDATION_BATCHES)]
        return float(np.mean(losses))

    return validate


def _sampler(
    images: PairImages,
    rows: np.ndarray,
    parameters: TrainingParameters,
    seed: int,
    augment: bool,
) -> PairSampler:
    return PairSampler(
        images,
        rows,
        seed=seed,
        batch_size=parameters.batch_size,
        crop_px=parameters.crop_px,
        mosaic_px=parameters.latent_patch_px if parameters.preset == "compact" else 0,
        half_resolution=parameters.half_resolution_probability,
        probability=parameters.stain_augmentation_probability if augment else 0.0,
        strength=parameters.stain_augmentation_strength,
    )


def _assemble(
    parameters: TrainingParameters, patch_size: int, seed: int, mpp: float | None
) -> StainFuserPipeline:
    common: dict[str, Any] = dict(
        seed=seed,
        objective=parameters.objective,
        start=parameters.start,
        mpp=mpp,
        patch_size=patch_size,
        context_tokens=parameters.context_tokens,
    )
    if parameters.preset == "sd21":
        return sd21_pipeline(base_model=parameters.base_model, **common)
    return compact_pipeline(
        latent_patch_px=parameters.latent_patch_px,
        latent_channels=parameters.latent_channels,
        channels=parameters.channels,
        decoder_channels=parameters.decoder_channels,
        **common,
    )


@contextlib.contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Fix the number of threads and choose deterministic kernels for the time of the block.

    Sums are split among threads, so the last bits of a result depend on their number.
    """
    kept_threads = torch.get_num_threads()
    kept_mode = torch.are_deterministic_algorithms_enabled()
    kept_warning = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    # On CUDA a few kernels have no deterministic form: warn there, insist on a CPU.
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    try:
        yield
    finally:
        torch.set_num_threads(kept_threads)
        torch.use_deterministic_algorithms(kept_mode, warn_only=kept_warning)
