"""Train the operator head on recolourings of real tissue and measure it on held-out tissue."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from stainfuser.diffusion.head_data import starting_classes
from stainfuser.diffusion.head_evaluation import (
    all_arms,
    evaluate_fan,
    evaluate_not_he,
    evaluate_recolouring,
    evaluate_safety,
    recolouring_tasks,
    summarise_rows,
)
from stainfuser.diffusion.head_phantoms import draw_phantoms
from stainfuser.diffusion.head_sheets import stain_sheet
from stainfuser.diffusion.head_training import HeadTrainingOptions, train_head
from stainfuser.diffusion.training_images import TrainingImage, prepare_image
from stainfuser.errors import InputError
from stainfuser.files import exclusive_folder, sha256_file, write_rows
from stainfuser.io.image_collection import (
    CollectionEntry,
    is_mosaic,
    read_entry,
    read_split_table,
)
from stainfuser.nn.class_matcher import OperatorHeadParams
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.pictures import save_picture
from stainfuser.stain.tile_grid import middle_of
from stainfuser.stamps import make_stamp

LOGGER = logging.getLogger("stainfuser")
# Factor on the variance of the starting classes: softer ones are easier to move.
STARTING_SOFTNESS = 24.0
# Every so manieth pair of protocols of the mosaics is measured after training.
FAN_STEP = 4


def train_operator_head(
    *,
    images_dir: Path | str,
    split_path: Path | str,
    head_dir: Path | str,
    losses_path: Path | str,
    summary_path: Path | str,
    sheet_path: Path | str,
    work_dir: Path | str,
    seed: int,
    threads: int,
    classes: int,
    widths: Sequence[int],
    context_width: int,
    token_width: int,
    token_layers: int,
    token_heads: int,
    max_side_px: int,
    steps: int,
    tiles_per_step: int,
    tile_px: int,
    learning_rate: float,
    weight_decay: float,
) -> None:
    """Train on the split ``train`` and on phantoms, measure on ``test``; see `HeadTrainingOptions`.

    Parameters
    ----------
    images_dir, split_path
        Folder of real images, and the table that divides them (`io.image_collection`).
    head_dir
        Folder of the trained head: ``config.json``, ``model.safetensors``.
    losses_path
        CSV, one row per step.
    summary_path
        CSV: arm, data, metric, mean, worst, n on held-out tissue.
    sheet_path
        PNG: held-out sources in the stains of held-out targets.
    work_dir
        Folder of the checkpoint.

    Raises
    ------
    InputError
        An image is missing or unreadable, or no image is for training.
    TrainingError
        The loss is not finite.
    """
    torch.set_num_threads(threads)
    params = OperatorHeadParams(
        classes, tuple(widths), context_width, token_width, token_layers, token_heads, max_side_px
    )
    options = HeadTrainingOptions(steps, tiles_per_step, tile_px, learning_rate, weight_decay)
    entries = read_split_table(split_path)
    with exclusive_folder(work_dir):
        torch.manual_seed(seed)
        images = _training_images(images_dir, entries, tile_px, split_path, seed)
        head = OperatorHead(params)
        centres, variance = starting_classes(images, classes, tile_px, seed)
        head.start_classes(centres, STARTING_SOFTNESS * variance)
        head, losses = train_head(head, images, options, seed=seed, work_dir=work_dir)
    configuration = params.to_dict() | vars(options) | {"seed": seed}
    stamp = make_stamp("train_operator_head", configuration, split_sha256=sha256_file(split_path))
    head.save_pretrained(head_dir, stamp)
    write_rows(losses_path, list(losses[0]), losses)
    _evaluate(head, images_dir, entries, summary_path, sheet_path, seed)


def _training_images(
    images_dir: Path | str,
    entries: list[CollectionEntry],
    tile_px: int,
    split_path: Path | str,
    seed: int,
) -> list[TrainingImage]:
    chosen = [entry for entry in entries if entry.split == "train" and entry.stain == "he"]
    if not chosen:
        raise InputError(split_path, "no H&E image has the split train", "mark some as train")
    images = [prepare_image(e.file, read_entry(images_dir, e), tile_px) for e in chosen]
    return images + draw_phantoms(tile_px, seed)


def _evaluate(
    head: OperatorHead,
    images_dir: Path | str,
    entries: list[CollectionEntry],
    summary_path: Path | str,
    sheet_path: Path | str,
    seed: int,
) -> None:
    held_out = {e.file: read_entry(images_dir, e) for e in entries if e.split == "test"}
    he = {e.file for e in entries if e.split == "test" and e.stain == "he"}
    plain = {name: rgb for name, rgb in held_out.items() if name in he and not is_mosaic(name)}
    mosaics = [rgb for name, rgb in held_out.items() if is_mosaic(name)]
    arms = all_arms(head)
    LOGGER.info("measuring on %d held-out images", len(held_out))
    rows = evaluate_recolouring(arms, recolouring_tasks(plain, seed))
    if len(mosaics) > 1:
        rows += evaluate_fan(arms, mosaics, FAN_STEP)
    middles = {name: middle_of(rgb, 512) for name, rgb in plain.items()}
    rows += evaluate_safety(arms["operator_head"], middles)
    rows += evaluate_not_he(head, {n: rgb for n, rgb in held_out.items() if n not in he}, plain)
    summary = summarise_rows(rows)
    write_rows(summary_path, list(summary[0]), summary)
    save_picture(sheet_path, stain_sheet(arms["operator_head"], plain))
