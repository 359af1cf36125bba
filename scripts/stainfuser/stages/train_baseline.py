"""Train a baseline of the literature, made small, on unpaired tiles of slides and one target."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.baseline_networks import BaselineParams, build_network
from stainfuser.diffusion.baselines import (
    BASELINES,
    UnpairedTiles,
    as_function,
    save_baseline,
    save_failure,
    unpaired_loss,
)
from stainfuser.diffusion.optimization import OptimizationParameters, optimize, write_losses
from stainfuser.diffusion.torch_threads import reproducible
from stainfuser.errors import ConfigError, InputError, TrainingError
from stainfuser.files import exclusive_folder, sha256_content, sync_files
from stainfuser.io.images import read_image
from stainfuser.io.tile_store import TileReader
from stainfuser.logs import LOGGER
from stainfuser.nn.translators import MULTIPLE_PX
from stainfuser.pictures import contact_sheet, save_picture
from stainfuser.stain.target_tiles import cut_tile
from stainfuser.stamps import make_stamp, settings_of

# Momentum of generators and discriminators, as CycleGAN has it; the norm cuts off rare blows.
BETAS, MAX_GRADIENT_NORM, WARMUP_STEPS, WEIGHT_DECAY = (0.5, 0.99), 5.0, 30, 1e-4
# Discriminators need crops of at least the patches they judge.
LEAST_CROP_PX = 32
SAMPLE_ROWS, SAMPLE_CELL_PX = 6, 224
POSITIVE = ("source_tiles", "steps", "batch_size", "checkpoint_steps", "channels", "blocks")
NOT_OPTIONS = ("tiles_paths", "target_path", "baseline_dir", "work_dir", "threads", "device")


def train_baseline(
    *,
    baseline: str,
    tiles_paths: Sequence[str | Path],
    target_path: str | Path,
    baseline_dir: str | Path,
    work_dir: str | Path,
    seed: int,
    source_tiles: int,
    steps: int,
    batch_size: int,
    crop_px: int,
    channels: int,
    blocks: int,
    learning_rate: float,
    ema_decay: float,
    sampling_steps: int,
    ensemble: int,
    checkpoint_steps: int,
    threads: int = 2,
    device: str = "auto",
) -> None:
    """Train and write a folder that `diffusion.baselines.load_baseline` reads.

    A killed run continues from its last checkpoint to the same bytes, as long as `threads` and the
    device stay what they were. A training whose loss is not finite stops, and the folder says why
    in place of weights (``failure.json``), so that the other arms of an evaluation go on.

    Parameters
    ----------
    baseline
        One of `BASELINES`.
    tiles_paths, target_path
        Tile stores of the slides to be normalised, and the target's image, at one resolution.
    baseline_dir
        Gets ``config.json``, ``model.safetensors``, ``losses.csv`` and ``samples.png``.
    source_tiles
        Most tiles learned from, the same number of each slide.
    sampling_steps, ensemble
        Steps and draws of the diffusion baseline; the others do not use them.

    Raises
    ------
    ConfigError, InputError
        An option out of range, no tiles, a target smaller than a crop.
    """
    options = {key: value for key, value in locals().items() if key not in NOT_OPTIONS}
    _check_options(options)
    target = read_image(target_path)
    sources = _read_sources([Path(path) for path in tiles_paths], source_tiles)
    tiles = UnpairedTiles(sources, target, _crop_px(crop_px, sources, target, target_path))
    stamp = make_stamp("train_baseline", options, tiles_sha256=_fingerprint(sources, target))
    params = BaselineParams(baseline, channels, blocks, sampling_steps, ensemble)
    with exclusive_folder(work_dir) as folder, reproducible(threads):
        from accelerate import Accelerator

        checkpoints = _own_folder(folder, {**settings_of(stamp), "threads": str(threads)})
        network = build_network(params, seed)
        partial = folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            rows = optimize(
                network,
                unpaired_loss(tiles, batch_size, seed),
                _optimization(baseline, steps, learning_rate, ema_decay, checkpoint_steps),
                Accelerator(cpu=device == "cpu"),
                checkpoints,
            )
            save_baseline(partial, network, params, stamp)
            write_losses(partial / "losses.csv", rows)
            _draw_samples(partial / "samples.png", baseline, network, sources, target)
            LOGGER.info("%s: trained on %d tiles", baseline, len(sources))
        except TrainingError as error:
            LOGGER.error("%s", error)
            save_failure(partial, error, stamp)
        sync_files(partial)
        _move(partial, Path(baseline_dir))


def _check_options(options: dict[str, Any]) -> None:
    if options["baseline"] not in BASELINES:
        found = f"{options['baseline']!r} is unknown"
        raise ConfigError("baseline", found, f"choose one of {', '.join(BASELINES)}")
    for key in (*POSITIVE, "sampling_steps", "ensemble"):
        if options[key] < 1:
            raise ConfigError(f"baselines.{key}", f"{options[key]} is below 1", "set at least 1")
    if options["channels"] % 4:
        found = f"{options['channels']} is not a multiple of 4"
        raise ConfigError("baselines.channels", found, "set 8, 12, 16 ...")


def _read_sources(paths: list[Path], count: int) -> NDArray[np.uint8]:
    """Return about `count` tiles (N, S, S, 3), spread evenly over slides and over each slide."""
    parts = []
    for path in paths:
        with TileReader(path) as reader:
            wanted = min(max(count // max(len(paths), 1), 1), len(reader))
            rows = np.linspace(0, len(reader) - 1, wanted).round().astype(int)
            if wanted:
                parts.append(reader.read(rows))
    if not parts:
        raise InputError("tiles", "no slide has a tile to learn from", "check the tissue masks")
    if len({part.shape[1:] for part in parts}) > 1:
        raise InputError("tiles", "the stores differ in their tiles' side", "run extract_tiles")
    return np.concatenate(parts)


def _crop_px(
    crop_px: int, sources: NDArray[np.uint8], target: NDArray[np.uint8], target_path: str | Path
) -> int:
    """Return the side of the crops, a multiple of `MULTIPLE_PX` that fits into all images."""
    side = min(crop_px, sources.shape[1], *target.shape[:2]) // MULTIPLE_PX * MULTIPLE_PX
    if side < LEAST_CROP_PX:
        raise InputError(
            target_path if min(target.shape[:2]) < LEAST_CROP_PX else "baselines.crop_px",
            f"crops of {side} px are too small to learn from, at least {LEAST_CROP_PX} px needed",
            "give a larger target image, larger tiles or a larger crop",
        )
    if side != crop_px:
        LOGGER.info("baseline: crops of %d px, which fit into all images", side)
    return side


def _fingerprint(sources: NDArray[np.uint8], target: NDArray[np.uint8]) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(sources))
    digest.update(np.ascontiguousarray(target))
    return digest.hexdigest()


def _own_folder(work_dir: Path, content: dict[str, str]) -> Path:
    """Return the folder of this configuration's checkpoints; those of others are removed."""
    own = work_dir / f"checkpoints_{sha256_content(content)[:16]}"
    for other in work_dir.glob("checkpoints_*"):
        if other != own:
            shutil.rmtree(other, ignore_errors=True)
    return own


def _optimization(
    baseline: str, steps: int, learning_rate: float, ema_decay: float, checkpoint_steps: int
) -> OptimizationParameters:
    return OptimizationParameters(
        phase=baseline,
        steps=steps,
        learning_rate=learning_rate,
        warmup_steps=WARMUP_STEPS,
        weight_decay=WEIGHT_DECAY,
        ema_decay=ema_decay,
        max_gradient_norm=MAX_GRADIENT_NORM,
        gradient_accumulation=1,
        checkpoint_steps=checkpoint_steps,
        betas=BETAS,
        rate_key="baselines.learning_rate",
    )


def _draw_samples(
    path: Path, baseline: str, network: Any, sources: NDArray[np.uint8], target: NDArray[np.uint8]
) -> None:
    """Draw tiles before and after, and a piece of the target."""
    count = min(SAMPLE_ROWS, len(sources))
    shown = sources[np.linspace(0, len(sources) - 1, count).round().astype(int)]
    side = shown.shape[1]
    top, left = (max(0, (length - side) // 2) for length in target.shape[:2])
    piece = cut_tile(target, left, top, side)
    rows = [
        [source, result, piece]
        for source, result in zip(shown, as_function(network)(shown), strict=True)
    ]
    sheet = contact_sheet(
        rows,
        title=f"Baseline {baseline.replace('_', '-')}",
        column_titles=("slide", "result", "target"),
        cell_px=SAMPLE_CELL_PX,
    )
    save_picture(path, sheet)


def _move(partial: Path, final: Path) -> None:
    shutil.rmtree(final, ignore_errors=True)
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, final)
