"""Training from pairs to a pipeline: autoencoder, then ControlNet and UNet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.diffusion.assemble import compact_pipeline, freeze_all_but, sd21_pipeline
from stainfuser.diffusion.autoencoder_phase import autoencoder_loss, prepare_autoencoder
from stainfuser.diffusion.checkpoints import fingerprint_weights
from stainfuser.diffusion.denoiser_training import TrainingData, per_process, train_denoiser
from stainfuser.diffusion.examples import Examples, FreshExamples, StoredExamples
from stainfuser.diffusion.operator_start import START
from stainfuser.diffusion.optimization import OptimizationParameters, Row, optimize
from stainfuser.diffusion.pair_sampler import PairSampler
from stainfuser.diffusion.pairs import PARTS, PairImages, Split
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.torch_threads import reproducible
from stainfuser.io.example_store import ExampleStore
from stainfuser.logs import LOGGER
from stainfuser.nn.operator_head import OperatorHead

__all__ = ["TrainingParameters", "TrainingResult", "reproducible", "train_pipeline"]


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
    initial_model: str | None
    stored_examples: int
    finetune_steps: int
    finetune_learning_rate: float

    def optimization(self, phase: str) -> OptimizationParameters:
        """Return how "autoencoder", "diffusion" or "finetune" is optimised."""
        steps, learning_rate = {
            "autoencoder": (self.autoencoder_steps, self.autoencoder_learning_rate),
            "diffusion": (self.steps, self.learning_rate),
            "finetune": (self.finetune_steps, self.finetune_learning_rate),
        }[phase]
        return OptimizationParameters(
            phase=phase,
            steps=steps,
            learning_rate=learning_rate,
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
    head: OperatorHead | None = None,
    key: str = "",
) -> TrainingResult:
    """Train a preset; a killed run goes on from its last checkpoint in `work_dir`.

    Preset `compact` trains its autoencoder first; `sd21` has Stable Diffusion's, and a model that
    training begins with has its own.

    Parameters
    ----------
    head
        Operator head for the start "operator_head".
    key
        Fingerprint of pairs and configuration: what stored examples depend on.
    """

    def assemble() -> StainFuserPipeline:
        return _assemble(parameters, images.image_px, seed, mpp, head).to(accelerator.device)

    trained = assemble()
    rows: list[Row] = []
    if parameters.preset == "sd21":
        freeze_all_but(trained, parameters.trained_unet_parts)
    elif parameters.initial_model is None:
        rows += _train_autoencoder(
            trained.vae, images, split, parameters, accelerator, work_dir, seed
        )

    # A patch's latents cost less than reading them; those of Stable Diffusion do not.
    with_latents = bool(parameters.stored_examples) and parameters.preset == "sd21"

    def examples(rows: np.ndarray, augment: bool) -> Examples:
        sampler = _sampler(images, rows, parameters, seed, augment, head)
        return FreshExamples(trained, sampler, with_latents)

    held_out = {
        part: examples(split[part], augment=False) for part in PARTS[1:] if len(split[part])
    }
    if not held_out:
        LOGGER.info("train: too few pairs to hold any out, so nothing is validated")
    train = examples(split["train"], augment=True)
    with contextlib.ExitStack() as stack:
        if parameters.stored_examples:
            store = _stored(trained, train, parameters, accelerator, work_dir, key)
            train = StoredExamples(
                stack.enter_context(store),
                seed=seed,
                batch_size=parameters.batch_size,
                crop_px=parameters.crop_px,
            )
        phases = (parameters.optimization("diffusion"), parameters.optimization("finetune"))
        data = TrainingData(train, held_out)
        rows += train_denoiser(trained, data, phases, accelerator, work_dir, seed)

    def make_untrained() -> StainFuserPipeline:
        untrained = assemble()
        untrained.vae.load_state_dict(trained.vae.state_dict())
        return untrained

    return TrainingResult(trained, make_untrained, rows)


def _stored(
    pipeline: StainFuserPipeline,
    fresh: Examples,
    parameters: TrainingParameters,
    accelerator: Any,
    work_dir: Path,
    key: str,
) -> ExampleStore:
    """Encode examples once; the file goes with the autoencoder and all they depend on."""

    def make(first: int) -> dict[str, np.ndarray]:
        return fresh.draw(first // parameters.batch_size).to_arrays()

    contents = {"vae": fingerprint_weights(pipeline.vae), "key": key}
    with accelerator.main_process_first():
        return ExampleStore.filled(
            work_dir / "examples.h5", contents, parameters.stored_examples, make
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
    loss_of = per_process(loss_of, accelerator)
    return optimize(vae, loss_of, options, accelerator, work_dir / "autoencoder")


def _sampler(
    images: PairImages,
    rows: np.ndarray,
    parameters: TrainingParameters,
    seed: int,
    augment: bool,
    head: OperatorHead | None,
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
        head=head if parameters.start == START else None,
    )


def _assemble(
    parameters: TrainingParameters,
    patch_size: int,
    seed: int,
    mpp: float | None,
    head: OperatorHead | None,
) -> StainFuserPipeline:
    if parameters.initial_model is not None:
        pipeline = StainFuserPipeline.from_pretrained(parameters.initial_model)
        pipeline.register_to_config(mpp=mpp, patch_size=patch_size, _name_or_path="")
        for network in (pipeline.vae, pipeline.unet, pipeline.controlnet):
            # Where the model lay is nobody's business but the user's.
            network.register_to_config(_name_or_path="")
        return pipeline
    common: dict[str, Any] = dict(
        seed=seed,
        objective=parameters.objective,
        start=parameters.start,
        mpp=mpp,
        patch_size=patch_size,
        context_tokens=parameters.context_tokens,
        operator_head=head,
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
