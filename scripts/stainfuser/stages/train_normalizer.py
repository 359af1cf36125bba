"""Train the diffusion model on pairs and write it as a folder diffusers can load."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stainfuser.diffusion.launching import GIVEN, count_processes, is_launched, launch, serve
from stainfuser.diffusion.loading import fingerprint_model
from stainfuser.diffusion.operator_mode import load_head
from stainfuser.diffusion.optimization import write_losses
from stainfuser.diffusion.pairs import PARTS, PairImages, Split, split_pairs, spread_rows
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.training import reproducible, train_pipeline
from stainfuser.diffusion.training_options import (
    check_options,
    training_parameters,
    with_found_models,
)
from stainfuser.diffusion.training_pictures import draw_curves, draw_samples
from stainfuser.diffusion.validation import (
    ARMS,
    better_arm,
    describe_gain,
    render_parts,
    score_parts,
)
from stainfuser.errors import ConfigError
from stainfuser.files import sha256_content, sync_files, write_json
from stainfuser.io.pair_store import PairStore
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp, settings_of

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
    "gpus",
    "nodes",
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
    initial_model: str | None,
    operator_head: str | None,
    stored_examples: int,
    finetune_steps: int,
    finetune_learning_rate: float,
    threads: int = 2,
    device: str = "auto",
    gpus: int = 1,
    nodes: int = 1,
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
        Held-out pairs as a picture and as numbers; "saved" tells whether the trained model is what
        `model_dir` holds, or the initial one because training made it worse; "outcome" says so.
    initial_model
        Model that training begins with; preset, objective, start and sizes are then its own.
    threads, device
        CPU threads; "auto" (an accelerator if there is one) or "cpu".
    gpus, nodes
        What the job was given, all nodes together: as many processes train. 0 GPUs: on CPUs.

    Raises
    ------
    ConfigError, InputError, TrainingError
        On an option out of range, unusable pairs, and a loss that is not finite.
    """
    call = dict(locals())
    options = {key: value for key, value in call.items() if key not in NOT_OPTIONS}
    options.update(channels=list(channels), trained_unet_parts=list(trained_unet_parts))
    check_options(options)
    options = with_found_models(options)
    if not is_launched():
        given = os.environ.get(GIVEN)
        processes = count_processes(gpus, nodes, torch.cuda.device_count(), given)
        if processes > 1:
            resources = {"processes": processes, "nodes": nodes, "threads": threads}
            launch("stainfuser.stages.train_normalizer", call, work_dir, **resources)
            return
    device = device if gpus else "cpu"
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
        parameters = training_parameters(options, images.image_px)
        head = None if options["operator_head"] is None else load_head(options["operator_head"])
        result = train_pipeline(
            images,
            split,
            parameters,
            accelerator,
            folder,
            seed,
            pairs.mpp,
            head,
            sha256_content(settings_of(stamp)),
        )
        if accelerator.is_main_process:
            parts = render_parts(
                result.trained, result.make_untrained, images, split, validation_pairs
            )
            scores = score_parts(parts)
            chosen = "trained" if initial_model is None else better_arm(scores)
            _write_validation(validation_path, scores, chosen, stamp)
            draw_samples(samples_path, parts, SAMPLE_ROWS_PER_PART)
            draw_curves(curves_path, result.rows)
            write_losses(losses_path, result.rows)
            model = result.trained if chosen == "trained" else result.make_untrained()
            if model.operator_head is not None and initial_model is None:
                # What a call does by default: rendering has to be worth it.
                is_better = better_arm(scores) == "trained"
                model.register_to_config(mode="render" if is_better else "operator")
            _write_model(model, Path(model_dir), folder, stamp)


def _without_folders(options: dict[str, Any]) -> dict[str, Any]:
    """Keep of local models their names and contents: no product tells where files lie."""
    kept = dict(options)
    base = options["base_model"]
    if base is not None and Path(base).exists():
        kept["base_model"] = Path(base).name
    for key in ("initial_model", "operator_head"):
        if options[key] is not None:
            kept[key] = fingerprint_model(options[key])
    return kept


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
    name = sha256_content({**settings_of(stamp), "threads": threads})[:16]
    for other in work_dir.glob("*"):
        if other.is_dir() and other.name != name:
            LOGGER.info("train: configuration or pairs changed, training starts anew")
            shutil.rmtree(other)
    (work_dir / name).mkdir(parents=True, exist_ok=True)
    return work_dir / name


def _write_validation(
    path: str | Path, parts: dict[str, Any], chosen: str, stamp: dict[str, str]
) -> None:
    """Write the numbers, and say in the log what they mean."""
    for name, part in parts.items():
        values = ", ".join(f"{arm} {part[arm]['ciede2000']:.2f}" for arm in ARMS)
        LOGGER.info("train: CIEDE2000 to the truth, %s (n = %d): %s", name, part["n"], values)
    outcome = describe_gain(parts, chosen)
    LOGGER.info("train: %s", outcome)
    write_json(path, {"parts": parts, "saved": chosen, "outcome": outcome, "stamp": stamp})


def _write_model(
    pipeline: StainFuserPipeline, model_dir: Path, work_dir: Path, stamp: dict[str, str]
) -> None:
    """Write the model beside its checkpoints and move it to its place in one rename."""
    partial = work_dir / "model"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    write_json(partial / "stainfuser.json", stamp)
    sync_files(partial)
    shutil.rmtree(model_dir, ignore_errors=True)
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, model_dir)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    serve(train_normalizer)
