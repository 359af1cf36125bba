"""Throughput on a GPU: tiles and megapixels per second, peak memory; compact and sd21.

Every combination of network calls, target tokens, precision and batch size is one row of data.
Weights may be random: the speed is the same. Where there is no GPU the rows say so.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging

from stainfuser.diffusion.benchmark_arms import Image
from stainfuser.diffusion.head_evaluation import Row
from stainfuser.logs import progress

STEPS, TOKENS, PRECISIONS = (20, 1), (4096, 256, 64), ("fp16", "bf16")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
NOT_MEASURED = "not measured"
# A combination is repeated for at least so long.
SECONDS = 1.0


def gpu_rows(
    pipes: Mapping[str, Any],
    source: Image,
    target: Image,
    *,
    device: str = "cuda",
    batches: Sequence[int] = BATCHES,
    precisions: Sequence[str] = PRECISIONS,
    seconds: float = SECONDS,
) -> list[Row]:
    """Measure pipelines by name; they are moved to `device` and back, and keep their precision.

    A batch that does not fit into memory ends the sweep of its combination.
    """
    # A pipeline warns of every change of precision.
    logging.set_verbosity_error()
    rows: list[Row] = []
    for name, pipe in pipes.items():
        dtype, tokens_before = pipe.unet.dtype, pipe.config.context_tokens
        combinations = list(itertools.product(precisions, TOKENS, STEPS))
        for precision, tokens, steps in progress(combinations, f"{name} on {device}"):
            pipe.to(device, DTYPES[precision])
            pipe.register_to_config(context_tokens=tokens)
            encoded = pipe.encode_target(target)
            for batch in batches:
                measured = _measure(pipe, source, encoded, steps, batch, device, seconds)
                if measured is None:
                    break
                data = f"gpu, {steps} steps, {tokens} tokens, {precision}, batch {batch}"
                rows.append({"arm": name, "data": data, "unit": "512"} | measured)
        pipe.to("cpu", dtype)
        pipe.register_to_config(context_tokens=tokens_before)
    return rows


def not_measured(names: Sequence[str]) -> list[dict[str, str | int]]:
    """Return summary rows that say what was not measured, for want of a GPU."""
    return [
        {"arm": name, "data": data, "metric": metric, "n": 0}
        | dict.fromkeys(("mean", "ci_low", "ci_high", "worst"), NOT_MEASURED)
        for name, data in itertools.product(names, _data_names())
        for metric in ("tiles_per_s", "mpix_per_s", "peak_gib")
    ]


def device_name() -> str | None:
    """Return the GPU's name; None without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _data_names() -> Iterator[str]:
    for precision, tokens, steps in itertools.product(PRECISIONS, TOKENS, STEPS):
        yield f"gpu, {steps} steps, {tokens} tokens, {precision}"


def _measure(
    pipe: Any,
    source: Image,
    encoded: Any,
    steps: int,
    batch: int,
    device: str,
    seconds: float,
) -> dict[str, float] | None:
    """Return tiles_per_s, mpix_per_s and peak_gib; None where the batch does not fit."""
    sources = np.repeat(source[None], batch, axis=0)
    is_cuda = device.startswith("cuda")

    def call() -> None:
        options = {"num_inference_steps": steps, "batch_size": batch, "output_type": "pt"}
        pipe(sources, encoded, mode="render", **options)
        if is_cuda:
            torch.cuda.synchronize()

    try:
        call()
        if is_cuda:
            torch.cuda.reset_peak_memory_stats()
        start, calls = time.perf_counter(), 0
        while time.perf_counter() - start < seconds or not calls:
            call()
            calls += 1
        elapsed = time.perf_counter() - start
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    tiles = batch * calls / elapsed
    measured = {"tiles_per_s": tiles, "mpix_per_s": tiles * source[..., 0].size / 1e6}
    if is_cuda:
        measured["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return measured
