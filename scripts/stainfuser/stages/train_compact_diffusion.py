"""Train the diffusion part of the preset compact on pairs of real tissue and measure it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser import __version__
from stainfuser.diffusion.assemble import compact_pipeline
from stainfuser.diffusion.compact_phantoms import draw_sections
from stainfuser.diffusion.compact_style import StylePairs, load_style_network
from stainfuser.diffusion.compact_training import (
    CompactData,
    CompactOptions,
    Tissue,
    train_compact,
)
from stainfuser.diffusion.compact_validation import (
    compare_modes,
    render_tasks,
    round_trip_psnr,
    share_nearer,
)
from stainfuser.diffusion.head_phantoms import draw_phantoms
from stainfuser.diffusion.loading import fingerprint_model
from stainfuser.diffusion.operator_mode import load_head
from stainfuser.diffusion.operator_start import START
from stainfuser.diffusion.optimization import OptimizationParameters, write_losses
from stainfuser.diffusion.training import reproducible
from stainfuser.diffusion.training_images import prepare_image
from stainfuser.diffusion.training_pictures import draw_curves
from stainfuser.errors import InputError
from stainfuser.files import (
    exclusive_folder,
    sha256_content,
    sha256_file,
    sync_files,
    write_json,
)
from stainfuser.io.image_collection import (
    CollectionEntry,
    is_mosaic,
    read_entry,
    read_split_table,
)
from stainfuser.logs import LOGGER
from stainfuser.pictures import save_picture
from stainfuser.stamps import make_stamp, settings_of

# What this stage writes into a model's folder, beside an operator head.
PARTS = ("vae", "unet", "controlnet", "scheduler", "model_index.json")
MAX_GRADIENT_NORM = 1.0
# Phantom sections to learn from, and to choose the best checkpoint by.
SECTIONS, HELD_OUT_SECTIONS = 10, 2
# Gradient correlation with the source that rendering has to keep to become the default.
LEAST_STRUCTURE = 0.98
# Parameters of the stage that are no keys of the configuration section.
NOT_OPTIONS = (
    "images_dir",
    "split_path",
    "head_dir",
    "model_dir",
    "losses_path",
    "curves_path",
    "samples_path",
    "validation_path",
    "work_dir",
    "seed",
    "threads",
)


def train_compact_diffusion(
    *,
    images_dir: Path | str,
    split_path: Path | str,
    head_dir: Path | str,
    model_dir: Path | str,
    losses_path: Path | str,
    curves_path: Path | str,
    samples_path: Path | str,
    validation_path: Path | str,
    work_dir: Path | str,
    seed: int,
    threads: int,
    examples: int,
    tile_px: int,
    context_tokens: int,
    latent_patch_px: int,
    latent_channels: int,
    channels: Sequence[int],
    decoder_channels: int,
    autoencoder_steps: int,
    autoencoder_learning_rate: float,
    steps: int,
    learning_rate: float,
    finetune_steps: int,
    finetune_learning_rate: float,
    batch_size: int,
    crop_px: int,
    warmup_steps: int,
    weight_decay: float,
    ema_decay: float,
    checkpoint_steps: int,
    label_noise: float,
    style_share: float,
    feature_weights: str | None,
    feature_network: str,
) -> None:
    """Train on the split ``train`` and phantoms, choose on ``validation``, measure on ``test``.

    Parameters
    ----------
    images_dir, split_path
        Folder of real images, and the table that divides them (`io.image_collection`).
    head_dir
        Folder of the frozen operator head whose result the bridge starts from.
    model_dir
        Gets `PARTS`; an operator head in it is left alone.
    losses_path, curves_path
        Phase, step, loss, learning rate of every step as CSV, and drawn.
    samples_path
        PNG: held-out tissue, what operator and diffusion model make of it, and the truth.
    validation_path
        JSON: round trip of the autoencoder, operator and rendering on held-out tissue.
    work_dir
        Folder of checkpoints and stored examples.
    style_share, feature_weights, feature_network
        Share of the examples made by style transfer (`diffusion.compact_style`), and the network
        that measures style: its weights are a file below `images_dir`.

    Raises
    ------
    InputError
        An image or the weights that measure style are missing or unreadable, or no image is for
        training or validation.
    TrainingError
        The loss is not finite.
    """
    options = {key: value for key, value in locals().items() if key not in NOT_OPTIONS}
    options["channels"] = list(channels)
    hashes = {
        "split_sha256": sha256_file(split_path),
        "operator_head_sha256": fingerprint_model(head_dir),
    }
    # No product says where a file lies: of the weights a fingerprint is kept.
    weights = options.pop("feature_weights")
    network = None
    if style_share:
        network = load_style_network(images_dir, weights, feature_network)
        hashes["feature_weights_sha256"] = sha256_file(Path(images_dir) / weights)
    stamp = make_stamp("train_compact_diffusion", {**options, "seed": seed}, **hashes)
    entries = read_split_table(split_path)
    with exclusive_folder(work_dir), reproducible(threads):
        train, validation = (
            Tissue(
                _images(images_dir, entries, split, tile_px, split_path),
                draw_sections(count, seed, split),
            )
            for split, count in (("train", SECTIONS), ("validation", HELD_OUT_SECTIONS))
        )
        if network is not None:
            images = [*train.images, *draw_phantoms(tile_px, seed)]
            train = replace(train, style=StylePairs(images, network, style_share))
        pipeline = _assemble(options, head_dir, seed)
        folder = Path(work_dir) / sha256_content({**settings_of(stamp), "threads": threads})[:16]
        rows = train_compact(
            pipeline,
            CompactData(train, validation),
            _compact_options(options),
            _accelerator(),
            folder,
            Path(work_dir) / "examples",
            seed,
            sha256_content([hashes, style_share, threads, __version__]),
        )
        write_losses(losses_path, rows)
        draw_curves(curves_path, rows)
        held_out = _named_images(images_dir, entries, "test")
        # Mosaics show many stains in one image; they are for another question.
        held_out = {name: rgb for name, rgb in held_out.items() if not is_mosaic(name)}
        _measure(pipeline, held_out, seed, validation_path, samples_path, stamp)
        _write_parts(pipeline, Path(model_dir), folder)


def _accelerator() -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True)


def _assemble(options: dict[str, Any], head_dir: Path | str, seed: int) -> Any:
    return compact_pipeline(
        seed=seed,
        objective="bridge",
        start=START,
        # Tiles are seen at many scales.
        mpp=None,
        patch_size=options["tile_px"],
        context_tokens=options["context_tokens"],
        latent_patch_px=options["latent_patch_px"],
        latent_channels=options["latent_channels"],
        channels=tuple(options["channels"]),
        decoder_channels=options["decoder_channels"],
        operator_head=load_head(head_dir),
    )


def _compact_options(options: dict[str, Any]) -> CompactOptions:
    def phase(name: str, prefix: str) -> OptimizationParameters:
        return OptimizationParameters(
            phase=name,
            steps=options[f"{prefix}steps"],
            learning_rate=options[f"{prefix}learning_rate"],
            warmup_steps=options["warmup_steps"],
            weight_decay=options["weight_decay"],
            ema_decay=options["ema_decay"],
            max_gradient_norm=MAX_GRADIENT_NORM,
            gradient_accumulation=1,
            checkpoint_steps=options["checkpoint_steps"],
        )

    return CompactOptions(
        examples=options["examples"],
        tile_px=options["tile_px"],
        batch_size=options["batch_size"],
        crop_px=options["crop_px"],
        label_noise=options["label_noise"],
        autoencoder=phase("autoencoder", "autoencoder_"),
        diffusion=phase("diffusion", ""),
        finetune=phase("finetune", "finetune_"),
    )


def _images(
    images_dir: Path | str,
    entries: list[CollectionEntry],
    split: str,
    tile_px: int,
    split_path: Path | str,
) -> list[Any]:
    images = _named_images(images_dir, entries, split)
    if not images:
        raise InputError(split_path, f"no H&E image has the split {split}", "mark some so")
    return [prepare_image(name, rgb, tile_px) for name, rgb in images.items()]


def _named_images(
    images_dir: Path | str, entries: list[CollectionEntry], split: str
) -> dict[str, NDArray[np.uint8]]:
    """Return the H&E images of a split by name."""
    chosen = [entry for entry in entries if entry.split == split and entry.stain == "he"]
    return {entry.file: read_entry(images_dir, entry) for entry in chosen}


def _measure(
    pipeline: Any,
    images: dict[str, NDArray[np.uint8]],
    seed: int,
    validation_path: Path | str,
    samples_path: Path | str,
    stamp: dict[str, str],
) -> None:
    """Write the numbers and the sheet.

    A call renders by default if that is nearer to the truth on average and mostly, and keeps the
    structure.
    """
    rendered = render_tasks(pipeline, images, seed)
    modes = compare_modes(rendered)
    for mode, values in modes.items():
        LOGGER.info("compact: %s on held-out tissue: %s", mode, values)
    is_nearer = modes["render"]["ciede2000"] < modes["operator"]["ciede2000"]
    keeps = modes["render"]["gradient_correlation"] >= LEAST_STRUCTURE
    share = share_nearer(rendered)
    better = "render" if is_nearer and share > 0.5 and keeps else "operator"
    pipeline.register_to_config(mode=better)
    content = {
        "autoencoder_psnr_db": round_trip_psnr(pipeline, list(images.values())),
        "held_out_tissue": modes,
        "better": better,
        "render_nearer_fraction": share,
        "n": len(rendered),
        "stamp": stamp,
    }
    write_json(validation_path, content)
    save_picture(samples_path, rendered.sheet())


def _write_parts(pipeline: Any, model_dir: Path, work_dir: Path) -> None:
    """Write the diffusion part beside its checkpoints and move it into the model's folder."""
    partial = work_dir / "model"
    shutil.rmtree(partial, ignore_errors=True)
    pipeline.save_pretrained(partial, safe_serialization=True)
    model_dir.mkdir(parents=True, exist_ok=True)
    sync_files(partial)
    for name in PARTS:
        final = model_dir / name
        if final.is_dir():
            shutil.rmtree(final)
        os.replace(partial / name, final)
