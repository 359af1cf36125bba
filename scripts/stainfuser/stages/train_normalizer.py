"""Train the diffusion model on pairs and write it as a folder diffusers can load."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.diffusion.call_arguments import STARTS
from stainfuser.diffusion.loading import fingerprint_model
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.operator_mode import load_head
from stainfuser.diffusion.operator_start import START
from stainfuser.diffusion.optimization import write_losses
from stainfuser.diffusion.pairs import PARTS, PairImages, Split, split_pairs, spread_rows
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.training import TrainingParameters, reproducible, train_pipeline
from stainfuser.diffusion.training_pictures import draw_curves, draw_samples
from stainfuser.diffusion.validation import ARMS, better_arm, render_parts, score_parts
from stainfuser.errors import ConfigError, InputError
from stainfuser.files import read_json, sha256_content, sync_files, write_json
from stainfuser.io.pair_store import PairStore
from stainfuser.logs import LOGGER
from stainfuser.presets import HEAD_FOLDER, find_model, read_contents
from stainfuser.stamps import make_stamp

PRESETS = ("compact", "sd21")
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
# What a model that training begins with decides in place of the configuration.
MODEL_KEYS = ("preset", "objective", "start", "context_tokens")
SIZED_PARTS = ("vae", "unet")
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
        `model_dir` holds, or the initial one because training made it worse.
    initial_model
        Model that training begins with; preset, objective, start and sizes are then its own.
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
    options = _with_found_models(options)
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
            sha256_content(stamp),
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


def _with_found_models(options: dict[str, Any]) -> dict[str, Any]:
    """Put folders in place of the names of shipped models; a model brings what it is like.

    Raises `ConfigError` where the start needs an operator head and none is given.
    """
    found = dict(options)
    if options["initial_model"] is not None:
        contents = read_contents(find_model(options["initial_model"]))
        if not contents.can_render:
            raise ConfigError(
                "train.initial_model",
                f"{options['initial_model']!r} has no diffusion part that could be trained",
                "give another model, or null",
            )
        found["initial_model"] = str(contents.folder)
        found.update({key: contents.index[key] for key in MODEL_KEYS if key in contents.index})
        if found["preset"] == "compact":
            vae, unet = (read_json(contents.folder / part / "config.json") for part in SIZED_PARTS)
            found.update(latent_patch_px=vae["patch_px"], channels=unet["block_out_channels"])
        found["operator_head"] = str(contents.folder / HEAD_FOLDER) if contents.has_head else None
    elif options["operator_head"] is not None and options["start"] == START:
        contents = read_contents(find_model(options["operator_head"]))
        if not contents.has_head:
            raise ConfigError(
                "train.operator_head",
                f"{options['operator_head']!r} holds no operator head",
                "give a model that has one, or the preset compact",
            )
        found["operator_head"] = str(contents.folder / HEAD_FOLDER)
    else:
        found["operator_head"] = None
    if found["start"] == START and found["operator_head"] is None:
        raise ConfigError(
            "train.start",
            "operator_head needs an operator head, and none is given",
            "set train.operator_head, e.g. to compact",
        )
    return found


def _check_options(options: dict[str, Any]) -> None:
    """Raise `ConfigError` for the first option that cannot work."""
    objective_named(options["objective"])
    _check_choice("preset", options["preset"], PRESETS)
    _check_choice("start", options["start"], STARTS)
    _check_choice("mixed_precision", options["mixed_precision"], PRECISIONS)
    if options["objective"] == "epsilon" and options["finetune_steps"] > 0:
        raise ConfigError(
            "train.finetune_steps",
            "the objective epsilon makes no image in one step",
            "set it to 0, or train.objective to v_zero_snr or bridge",
        )
    for key in ("finetune_steps", "stored_examples"):
        if options[key] < 0:
            raise ConfigError(f"train.{key}", f"{options[key]} is negative", "set 0 or more")
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


def _write_validation(
    path: str | Path, parts: dict[str, Any], chosen: str, stamp: dict[str, str]
) -> None:
    """Write the numbers, and say in the log what they mean."""
    for name, part in parts.items():
        values = ", ".join(f"{arm} {part[arm]['ciede2000']:.2f}" for arm in ARMS)
        LOGGER.info("train: CIEDE2000 to the truth, %s (n = %d): %s", name, part["n"], values)
    if chosen != "trained":
        LOGGER.info("train: the model that training began with is better, and is what is saved")
    write_json(path, {"parts": parts, "saved": chosen, "stamp": stamp})


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


def _main() -> None:
    """Train with several processes: what the rule does, by hand, between `pairs` and `normalize`.

    ``accelerate launch -m stainfuser.stages.train_normalizer results/config.yaml``
    """
    import argparse

    import yaml

    parser = argparse.ArgumentParser(description="Train on results/pairs/pairs.h5.")
    parser.add_argument("config", type=Path, help="the resolved configuration of a run")
    path = parser.parse_args().config
    config, results = yaml.safe_load(path.read_text(encoding="utf-8")), path.parent
    train_normalizer(
        pairs_path=results / "pairs" / "pairs.h5",
        model_dir=results / "model",
        losses_path=results / "train" / "losses.csv",
        samples_path=results / "train" / "samples.png",
        curves_path=results / "train" / "curves.png",
        validation_path=results / "train" / "validation.json",
        work_dir=results / "work" / "train_normalizer",
        seed=config["seed"],
        # Launchers set this to what is a process's share of the machine.
        threads=int(os.environ.get("OMP_NUM_THREADS", "1")),
        **config["train"],
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    _main()
