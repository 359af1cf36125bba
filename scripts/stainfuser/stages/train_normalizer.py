"""Train the diffusion model on pairs and write it as a folder diffusers can load."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.optimization import Row
from stainfuser.diffusion.pairs import PARTS, PairImages, Split, split_pairs, spread_rows
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.training import TrainingParameters, reproducible, train_pipeline
from stainfuser.diffusion.training_pictures import draw_curves, draw_samples
from stainfuser.diffusion.validation import ARMS, render_parts, score_parts
from stainfuser.errors import ConfigError, InputError
from stainfuser.files import atomic_path, sha256_content, sync_file, write_json
from stainfuser.io.pair_store import PairStore
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp

PRESETS = ("compact", "sd21")
STARTS = ("source", "statistics")
PRECISIONS = ("no", "fp16", "bf16")
# A tile of Stable Diffusion is a multiple of this side: 8 px per latent, three halvings.
SD21_MULTIPLE_PX = 64
# Channels are normalised in this many groups.
GROUPS = 8
POSITIVE = (
    "steps",
    "autoencoder_steps",
    "batch_size",
    "crop_px",
    "warmup_steps",
    "gradient_accumulation",
    "checkpoint_steps",
    "validation_pairs",
    "latent_patch_px",
    "latent_channels",
)
# Parameters of the stage that are no keys of the configuration section.
NOT_OPTIONS = (
    "pairs_path",
    "model_dir",
    "losses_path",
    "samples_path",
    "curves_path",
    "validation_path",
    "work_dir",
    "seed",
    "threads",
    "device",
)
SAMPLE_ROWS_PER_PART = 2
# Stylised images that enter the fingerprint of the pairs, besides all sources and targets.
FINGERPRINT_PAIRS = 64


def train_normalizer(
    *,
    pairs_path: str | Path,
    model_dir: str | Path,
    losses_path: str | Path,
    samples_path: str | Path,
    curves_path: str | Path,
    validation_path: str | Path,
    work_dir: str | Path,
    seed: int,
    preset: str,
    base_model: str | None,
    trained_unet_parts: Sequence[str],
    objective: str,
    start: str,
    context_tokens: int | None,
    latent_patch_px: int,
    latent_channels: int,
    channels: Sequence[int],
    decoder_channels: int,
    autoencoder_steps: int,
    autoencoder_learning_rate: float,
    steps: int,
    batch_size: int,
    crop_px: int,
    half_resolution_probability: float,
    learning_rate: float,
    warmup_steps: int,
    weight_decay: float,
    ema_decay: float,
    max_gradient_norm: float,
    gradient_accumulation: int,
    mixed_precision: str,
    stain_augmentation_probability: float,
    stain_augmentation_strength: float,
    held_out_source_fraction: float,
    held_out_target_fraction: float,
    checkpoint_steps: int,
    validation_pairs: int,
    threads: int = 2,
    device: str = "auto",
) -> None:
    """Train, measure on held-out pairs and write model, losses, pictures and numbers.

    A killed run continues from the last checkpoint in `work_dir` to the same losses and the same
    weights, to the byte, as long as `threads` and the device stay what they were.

    Parameters
    ----------
    pairs_path
        `pairs.h5`, see `io.pair_store`.
    model_dir
        Folder of the model: vae, unet, controlnet, scheduler, `stainfuser.json`.
    losses_path, curves_path
        phase, step, loss, learning_rate of every step as CSV, and drawn.
    samples_path, validation_path
        Held-out pairs as a picture and as numbers.
    threads, device
        CPU threads; "auto" (an accelerator if there is one) or "cpu".

    Raises
    ------
    ConfigError, InputError, TrainingError
        On an option out of range, unusable pairs, and a loss that is not finite.
    """
    options = {key: value for key, value in locals().items() if key not in NOT_OPTIONS}
    options.update(channels=list(channels), trained_unet_parts=list(trained_unet_parts))
    _check_options(options)
    accelerator = _accelerator(mixed_precision, gradient_accumulation, device)
    with PairStore(pairs_path) as pairs, reproducible(threads):
        images = PairImages(pairs)
        split = split_pairs(pairs.planned, seed, held_out_source_fraction, held_out_target_fraction)
        fingerprint = _fingerprint(images, split)
        stamp = make_stamp(
            "train_normalizer",
            _without_folders({**options, "seed": seed}),
            pairs_sha256=fingerprint,
        )
        folder = _work_folder(Path(work_dir), stamp, threads)
        parameters = _parameters(options, images)
        result = train_pipeline(images, split, parameters, accelerator, folder, seed, pairs.mpp)
        if accelerator.is_main_process:
            parts = render_parts(
                result.trained, result.make_untrained, images, split, validation_pairs
            )
            _write_validation(validation_path, score_parts(parts), stamp)
            draw_samples(samples_path, parts, SAMPLE_ROWS_PER_PART)
            draw_curves(curves_path, result.rows)
            _write_losses(losses_path, result.rows)
            _write_model(result.trained, Path(model_dir), folder, stamp)


def _without_folders(options: dict[str, Any]) -> dict[str, Any]:
    """Keep of a local base model its name: no product tells where files lie."""
    base = options["base_model"]
    is_folder = base is not None and Path(base).exists()
    return {**options, "base_model": Path(base).name if is_folder else base}


def _check_options(options: dict[str, Any]) -> None:
    """Raise `ConfigError` for the first option that cannot work."""
    objective_named(options["objective"])
    _check_choice("preset", options["preset"], PRESETS)
    _check_choice("start", options["start"], STARTS)
    _check_choice("mixed_precision", options["mixed_precision"], PRECISIONS)
    for key in POSITIVE:
        if options[key] < 1:
            raise ConfigError(f"train.{key}", f"{options[key]} is below 1", "set at least 1")
    for key in ("held_out_source_fraction", "held_out_target_fraction"):
        if not 0.0 <= options[key] < 1.0:
            raise ConfigError(f"train.{key}", f"{options[key]} is not in [0, 1)", "lower it")
    wrong = [width for width in options["channels"] if width % GROUPS]
    if wrong or len(options["channels"]) < 2:
        raise ConfigError(
            "train.channels",
            f"{options['channels']} is not two or more multiples of {GROUPS}",
            f"give at least two multiples of {GROUPS}",
        )
    most = 3 * options["latent_patch_px"] ** 2
    if options["latent_channels"] > most:
        raise ConfigError(
            "train.latent_channels",
            f"{options['latent_channels']} is more than the {most} numbers of a patch",
            "lower it or raise train.latent_patch_px",
        )


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(
            f"train.{key}", f"{value!r} is unknown", f"choose one of {', '.join(choices)}"
        )


def _accelerator(mixed_precision: str, gradient_accumulation: int, device: str) -> Any:
    from accelerate import Accelerator

    try:
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=mixed_precision,
            gradient_accumulation_steps=gradient_accumulation,
        )
    except ValueError as error:
        remedy = 'set it to "no", or to bf16 where the device has it'
        raise ConfigError("train.mixed_precision", str(error), remedy) from None


def _parameters(options: dict[str, Any], images: PairImages) -> TrainingParameters:
    """Return the training parameters; crops are cut to what the pairs and the network allow."""
    names = [field.name for field in fields(TrainingParameters)]
    chosen = {name: options[name] for name in names}
    chosen.update({key: tuple(options[key]) for key in ("channels", "trained_unet_parts")})
    multiple = SD21_MULTIPLE_PX
    if options["preset"] == "compact":
        multiple = options["latent_patch_px"] * 2 ** (len(options["channels"]) - 1)
    crop_px = min(options["crop_px"], images.image_px) // multiple * multiple
    if crop_px < multiple:
        raise InputError(
            "pairs",
            f"images of {images.image_px} px are smaller than the network's {multiple} px",
            "make larger tiles (tiles.tile_px)",
        )
    if crop_px != options["crop_px"]:
        LOGGER.info("train: crops of %d px, a multiple of %d px that fits", crop_px, multiple)
    return TrainingParameters(**{**chosen, "crop_px": crop_px})


def _fingerprint(images: PairImages, split: Split) -> str:
    """Return a hash of the plan, all sources and targets and some stylised images."""
    rows = np.concatenate([split[part] for part in PARTS])
    digest = hashlib.sha256(rows.tobytes())
    for column, read in ((1, images.sources), (0, images.targets)):
        _, first = np.unique(rows[:, column], return_index=True)
        for image in read(rows[first]):
            digest.update(image.tobytes())
    for image in images.stylized(spread_rows(rows, FINGERPRINT_PAIRS)):
        digest.update(image.tobytes())
    return digest.hexdigest()


def _work_folder(work_dir: Path, stamp: dict[str, str], threads: int) -> Path:
    """Return the folder of this configuration's checkpoints; those of others are removed."""
    name = sha256_content({**stamp, "threads": threads})[:16]
    for other in work_dir.glob("*"):
        if other.is_dir() and other.name != name:
            LOGGER.info("train: configuration or pairs changed, training starts anew")
            shutil.rmtree(other)
    (work_dir / name).mkdir(parents=True, exist_ok=True)
    return work_dir / name


def _write_validation(path: str | Path, parts: dict[str, Any], stamp: dict[str, str]) -> None:
    """Write the numbers, and say in the log what they mean."""
    for name, part in parts.items():
        values = ", ".join(f"{arm} {part[arm]['ciede2000']:.2f}" for arm in ARMS)
        LOGGER.info("train: CIEDE2000 to the truth, %s (n = %d): %s", name, part["n"], values)
    write_json(path, {"parts": parts, "stamp": stamp})


def _write_losses(path: str | Path, rows: list[Row]) -> None:
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["phase", "step", "loss", "learning_rate"])
        table.writerows([phase, step, repr(loss), repr(rate)] for phase, step, loss, rate in rows)


def _write_model(
    pipeline: StainFuserPipeline, model_dir: Path, work_dir: Path, stamp: dict[str, str]
) -> None:
    """Write the model beside its checkpoints and move it to its place in one rename."""
    partial = work_dir / "model"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    write_json(partial / "stainfuser.json", stamp)
    for path in partial.rglob("*.*"):
        if path.is_file():
            sync_file(path)
    shutil.rmtree(model_dir, ignore_errors=True)
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, model_dir)
