"""Measure a model beside classical methods: colour, structure, safety and speed, in one run."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from stainfuser.diffusion.benchmark_arms import RENDER, Arm, Image, model_arms, peer_arms
from stainfuser.diffusion.benchmark_data import (
    degenerate_inputs,
    phantom_tasks,
    read_images,
    sheet_windows,
)
from stainfuser.diffusion.benchmark_degenerate import evaluate_degenerate, pipe_arm
from stainfuser.diffusion.benchmark_gpu import device_name, gpu_rows, not_measured
from stainfuser.diffusion.benchmark_plot import plot_errors
from stainfuser.diffusion.benchmark_speed import (
    model_speed,
    random_sd21,
    sd21_speed,
    speed_tile,
    times_faster,
)
from stainfuser.diffusion.benchmark_summary import (
    COLUMNS,
    as_markdown,
    as_notes,
    compare,
    summarise_with_intervals,
)
from stainfuser.diffusion.context_benchmark import compare_contexts, operation_rows
from stainfuser.diffusion.head_evaluation import (
    LABORATORIES,
    SAME_BLOCK,
    Row,
    evaluate_fan,
    evaluate_recolouring,
    evaluate_safety,
    recolouring_tasks,
)
from stainfuser.diffusion.head_sheets import lay_out
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.errors import InputError
from stainfuser.files import write_rows, write_text
from stainfuser.io.image_collection import is_mosaic, read_split_table
from stainfuser.pictures import save_picture

LOGGER = logging.getLogger("stainfuser")
SHEET_CELL_PX = 112
HELD_OUT = "held-out source x target"


def benchmark_model(
    *,
    images_dir: Path | str,
    split_path: Path | str,
    table_path: Path | str,
    comparison_path: Path | str,
    sheet_path: Path | str,
    figure_path: Path | str,
    seed: int,
    threads: int,
    model: str,
    phantom_pairs: int,
    pairs_per_image: int,
    fan_step: int,
    sd21_limit_s: float,
    bootstrap_samples: int,
    confidence: float,
) -> None:
    """Measure every arm of a model on held-out data, and hold it to `benchmark_summary.BOUNDS`.

    Parameters
    ----------
    images_dir, split_path
        Folder of real images, and the table that divides them (`io.image_collection`); those of
        the split ``test`` were not trained on.
    table_path
        CSV: arm, data, metric, mean, ci_low, ci_high, worst, n.
    comparison_path
        Markdown: every number that something is asked of, what is asked, and whether it is met.
    sheet_path
        PNG: every real source in every real target's stain.
    figure_path
        PNG: colour errors.
    threads
        CPU threads, of the speed too.
    model
        A shipped model's name, or a folder.
    phantom_pairs
        Pairs of drawn laboratories.
    pairs_per_image
        Windows per held-out image.
    fan_step
        Every so manieth pair of staining protocols.
    sd21_limit_s
        Seconds that the network calls of `sd21` may take, else some are extrapolated; 0 leaves it
        out.
    bootstrap_samples, confidence
        Of the intervals.

    Raises
    ------
    InputError
        The model or an image cannot be read, or no image was held out.
    """
    torch.set_num_threads(threads)
    pipe = _load(model)
    entries = read_split_table(split_path)
    tissue = read_images(images_dir, entries, lambda e: e.stain == "he")
    other = read_images(images_dir, entries, lambda e: e.stain != "he")
    held_out = {e.file for e in entries if e.split == "test"} & set(tissue)
    plain = {name: rgb for name, rgb in tissue.items() if name in held_out and not is_mosaic(name)}
    if len(plain) < 2:
        raise InputError(split_path, "fewer than two H&E images have the split test", "hold out 2")
    mosaics = [rgb for name, rgb in tissue.items() if name in held_out and is_mosaic(name)]
    arms = peer_arms() | model_arms(pipe)
    rows = _colour_rows(arms, plain, mosaics, seed, phantom_pairs, pairs_per_image, fan_step)
    structure, sheet = _structure_rows(pipe, arms, tissue, plain)
    rows += structure + _degenerate_rows(pipe, plain, other, tissue, seed)
    rows += _context_rows(pipe, plain)
    speed, unmeasured = _speed_rows(pipe, model, threads, sd21_limit_s)
    summary = summarise_with_intervals(rows + speed, seed, bootstrap_samples, confidence)
    write_rows(table_path, COLUMNS, [*summary, *unmeasured])
    write_text(
        comparison_path, _machine(threads) + as_markdown(compare(summary)) + as_notes(summary)
    )
    save_picture(sheet_path, sheet)
    plot_errors(figure_path, summary)


def _load(model: str) -> Any:
    from diffusers.utils.logging import disable_progress_bar

    disable_progress_bar()
    pipe = StainFuserPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    if not pipe.can_render:
        LOGGER.info("%s has no diffusion part: the arms that render are left out", model)
    if pipe.operator_head is None:
        LOGGER.info("%s has no operator head: its arm is left out", model)
    return pipe


def _colour_rows(
    arms: Mapping[str, Arm],
    plain: Mapping[str, Image],
    mosaics: Sequence[Image],
    seed: int,
    phantom_pairs: int,
    pairs_per_image: int,
    fan_step: int,
) -> list[Row]:
    with _Timed("phantoms of unseen laboratories"):
        rows = evaluate_recolouring(arms, phantom_tasks(phantom_pairs, seed), with_oracle=True)
    with _Timed("held-out tissue under held-out recolourings"):
        tasks = recolouring_tasks(plain, seed, pairs_per_image, "tissue, ")
        rows += evaluate_recolouring(arms, tasks, with_oracle=True)
    if len(mosaics) > 1:
        with _Timed("staining protocols"):
            rows += evaluate_fan(arms, mosaics, fan_step)
        with _Timed("staining protocols, where more is known"):
            for known in (SAME_BLOCK, LABORATORIES):
                rows += evaluate_fan(arms, mosaics, fan_step, known)
    return rows


def _structure_rows(
    pipe: Any, arms: Mapping[str, Arm], tissue: Mapping[str, Image], plain: Mapping[str, Image]
) -> tuple[list[Row], Image]:
    """Return rows, and the sheet of what was measured with the model's default arm."""
    windows, results = sheet_windows(tissue), {}

    def show(source: str, target: str, result: Image) -> None:
        step = max(max(result.shape[:2]) // (2 * SHEET_CELL_PX), 1)
        results[source, target] = result[::step, ::step]

    default = pipe_arm(pipe)
    with _Timed("every source x every target"):
        rows = evaluate_safety(arms[default], windows, default, show=show)
    with _Timed("held-out sources x targets, every arm"):
        for name, arm in arms.items():
            rows += evaluate_safety(arm, sheet_windows(plain), name, HELD_OUT)
    return rows, lay_out(windows, results, SHEET_CELL_PX)


def _degenerate_rows(
    pipe: Any,
    plain: Mapping[str, Image],
    other: Mapping[str, Image],
    tissue: Mapping[str, Image],
    seed: int,
) -> list[Row]:
    windows = sheet_windows(plain)
    kinds = degenerate_inputs(windows, seed)
    if other:
        kinds["not H&E"] = sheet_windows(other)
    with _Timed("degenerate inputs"):
        return evaluate_degenerate(pipe, kinds, windows, sheet_windows(tissue))


def _context_rows(pipe: Any, plain: Mapping[str, Image]) -> list[Row]:
    """Return what summarising a target's tokens saves, and costs a model with a diffusion part."""
    rows = operation_rows()
    if not pipe.can_render:
        return rows
    windows = list(sheet_windows(plain).values())
    side = min(min(rgb.shape[:2]) for rgb in windows)
    side -= side % pipe.size_multiple
    squares = [rgb[:side, :side] for rgb in windows]
    with _Timed("tokens of a target"):
        for found in compare_contexts(pipe, squares, squares[1:] + squares[:1]):
            labels = {"arm": RENDER, "data": f"target of {found['tokens']} tokens", "unit": "all"}
            measured = ("relative_error", "seconds", "encode_seconds")
            rows.append(labels | {name: float(found[name]) for name in measured})
            rows[-1]["de"] = float(found["ciede2000"])
    return rows


def _speed_rows(
    pipe: Any, model: str, threads: int, limit_s: float
) -> tuple[list[Row], list[dict[str, Any]]]:
    """Return rows, and rows of the summary that say what was not measured."""
    source, target = speed_tile(), speed_tile(seed=1)
    with _Timed(f"speed on {threads} threads"):
        rows = model_speed(pipe, threads, source, target)
        if limit_s <= 0:
            return rows, []
        sd21 = random_sd21()
        sd21.set_progress_bar_config(disable=True)
        own, seconds = sd21_speed(sd21, threads, source, target, limit_s)
        rows += own + times_faster(rows, seconds)
    pipes = {"sd21": sd21} | ({"compact": pipe} if pipe.can_render else {})
    if device_name() is None:
        LOGGER.info("no GPU: its speed is not measured")
        return rows, not_measured(list(pipes))
    with _Timed(f"speed on {device_name()}"):
        return rows + gpu_rows(pipes, source, target), []


def _machine(threads: int) -> str:
    """Say what machine the times are of."""
    processor = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            names = [line.split(":", 1)[1].strip() for line in handle if "model name" in line]
        processor = names[0] if names else processor
    except OSError:
        pass
    gpu = device_name() or "no GPU"
    return (
        f"Times: {threads} threads of {os.cpu_count()} ({processor}), {gpu}, "
        f"torch {torch.__version__}.\n\n"
    )


def _is_no_warning(record: logging.LogRecord) -> bool:
    return record.levelno != logging.WARNING


class _Timed:
    """Logs how long a part of the benchmark took, and not what a model remarks on each tile."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        self.start = time.perf_counter()
        LOGGER.addFilter(_is_no_warning)

    def __exit__(self, *_: object) -> None:
        LOGGER.removeFilter(_is_no_warning)
        LOGGER.info("%s: %.0f s", self.what, time.perf_counter() - self.start)
