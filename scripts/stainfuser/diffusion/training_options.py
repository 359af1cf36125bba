"""The options of a training: which cannot work, and what a model that it goes on from decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from stainfuser.diffusion.call_arguments import STARTS
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.operator_start import START
from stainfuser.diffusion.training import TrainingParameters
from stainfuser.errors import ConfigError, InputError
from stainfuser.files import read_json
from stainfuser.logs import LOGGER
from stainfuser.presets import HEAD_FOLDER, find_model, read_contents

PRESETS = ("compact", "sd21")
PRECISIONS = ("no", "fp16", "bf16")
# A tile of Stable Diffusion is a multiple of this side: 8 px per latent, three halvings.
SD21_MULTIPLE_PX = 64
# Channels are normalised in this many groups.
GROUPS = 8
POSITIVE = (
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
# What a model that training begins with decides in place of the configuration.
MODEL_KEYS = ("preset", "objective", "start", "context_tokens")
SIZED_PARTS = ("vae", "unet")


def check_options(options: dict[str, Any]) -> None:
    """Raise `ConfigError` for the first option that cannot work."""
    objective = objective_named(options["objective"])
    _check_choice("preset", options["preset"], PRESETS)
    _check_choice("start", options["start"], STARTS)
    _check_choice("mixed_precision", options["mixed_precision"], PRECISIONS)
    if options["finetune_steps"] > 0 and not objective.has_one_step:
        raise ConfigError(
            "train.finetune_steps",
            f"the objective {objective.name} makes no image in one step",
            "set it to 0, or train.objective to v_zero_snr or bridge",
        )
    for key in ("steps", "finetune_steps", "stored_examples"):
        if options[key] < 0:
            raise ConfigError(f"train.{key}", f"{options[key]} is negative", "set 0 or more")
    if not options["steps"] + options["finetune_steps"]:
        raise ConfigError("train.steps", "0, as is train.finetune_steps", "set one of them above 0")
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


def with_found_models(options: dict[str, Any]) -> dict[str, Any]:
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


def training_parameters(options: dict[str, Any], image_px: int) -> TrainingParameters:
    """Return the training parameters; crops are cut to what images and network allow."""
    names = [field.name for field in fields(TrainingParameters)]
    chosen = {name: options[name] for name in names}
    chosen.update({key: tuple(options[key]) for key in ("channels", "trained_unet_parts")})
    multiple = SD21_MULTIPLE_PX
    if options["preset"] == "compact":
        multiple = options["latent_patch_px"] * 2 ** (len(options["channels"]) - 1)
    crop_px = min(options["crop_px"], image_px) // multiple * multiple
    if crop_px < multiple:
        raise InputError(
            "pairs",
            f"images of {image_px} px are smaller than the network's {multiple} px",
            "make larger tiles (tiles.tile_px)",
        )
    if crop_px != options["crop_px"]:
        LOGGER.info("train: crops of %d px, a multiple of %d px that fits", crop_px, multiple)
    return TrainingParameters(**{**chosen, "crop_px": crop_px})
