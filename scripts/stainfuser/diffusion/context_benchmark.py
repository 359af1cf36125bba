"""What summarising a target costs: error against all of its tokens, and time.

Measured on a model with a diffusion part as it is trained, on real images: the same sources and
targets with all tokens of the target, and with these summarised by k-means.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.diffusion.context import StainTarget, flatten_tokens, reduce_tokens
from stainfuser.diffusion.encoding import encode_latents, to_range
from stainfuser.diffusion.images import image_list, reflect_pad
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.published import empty_networks
from stainfuser.diffusion.sampling import predict, remembered_context
from stainfuser.nn.stain_statistics import StainStatistics
from stainfuser.nn.token_attention import WeightedTokenProcessor
from stainfuser.stain.metrics import ciede2000

Image = NDArray[np.uint8]
ALL = "all"
REPEATS = 3


def compare_contexts(
    pipeline: StainFuserPipeline,
    sources: Sequence[Image],
    targets: Sequence[Image],
    counts: Sequence[int] = (256, 64),
) -> list[dict[str, Any]]:
    """Return one row for all tokens, and one for each of `counts`.

    Parameters
    ----------
    pipeline
        A model with a diffusion part, on any device.
    sources, targets
        (H, W, 3) uint8 RGB of one size, as many of the one as of the other; each source is
        rendered in the stain of its target.
    counts
        Numbers of tokens to summarise a target to.

    Returns
    -------
    list of rows: ``context`` ("all" or the count), ``tokens`` (their number), ``relative_error`` of
    the clean latents (root mean square, relative to how far they are from the source's) and
    ``ciede2000`` of the pixels, both against all tokens and means over the images; ``seconds`` of a
    rendering, the least of `REPEATS`, and ``encode_seconds`` that summarising a target takes.
    """
    every = [_with_all_tokens(pipeline, target) for target in targets]
    expected = [_rendered(pipeline, *pair) for pair in zip(sources, every, strict=True)]
    start = [_start(pipeline, source) for source in sources]
    rows = [_row(pipeline, sources, every, expected, start, ALL, 0.0)]
    for count in counts:
        began = time.perf_counter()
        reduced = [_reduced(target, count) for target in every]
        seconds = (time.perf_counter() - began) / len(every)
        rows.append(_row(pipeline, sources, reduced, expected, start, str(count), seconds))
    return rows


def _row(
    pipeline: StainFuserPipeline,
    sources: Sequence[Image],
    targets: Sequence[StainTarget],
    expected: Sequence[tuple[Tensor, Image]],
    start: Sequence[Tensor],
    name: str,
    encode_seconds: float,
) -> dict[str, Any]:
    found = [_rendered(pipeline, *pair) for pair in zip(sources, targets, strict=True)]
    errors, differences = [], []
    for (latents, image), (true_latents, true_image), first in zip(
        found, expected, start, strict=True
    ):
        change = (true_latents - first).square().mean().sqrt().clamp(min=1e-6)
        errors.append(float((latents - true_latents).square().mean().sqrt() / change))
        differences.append(ciede2000(image, true_image))
    return {
        "context": name,
        "tokens": int(targets[0].tokens.shape[1]),
        "relative_error": float(np.mean(errors)),
        "ciede2000": float(np.mean(differences)),
        "seconds": _seconds(pipeline, sources[0], targets[0]),
        "encode_seconds": encode_seconds,
    }


@torch.no_grad()
def _with_all_tokens(pipeline: StainFuserPipeline, image: Image) -> StainTarget:
    """Encode a target without summarising it; the statistics are as ever."""
    target = pipeline.encode_target(image)
    rgb = image_list(image, "target")[0][None].to(pipeline.vae.device)
    factor = pipeline.latent_factor
    height, width = (side // factor * factor for side in rgb.shape[-2:])
    pixels = to_range(rgb[..., :height, :width], pipeline.config.target_range)
    tokens = flatten_tokens(encode_latents(pipeline.vae, pixels)).float()
    return replace(target, tokens=tokens, token_bias=None)


@torch.no_grad()
def _reduced(target: StainTarget, count: int) -> StainTarget:
    tokens, bias = reduce_tokens(target.tokens, count)
    return replace(target, tokens=tokens, token_bias=bias)


def _rendered(
    pipeline: StainFuserPipeline, source: Image, target: StainTarget
) -> tuple[Tensor, Image]:
    """Return clean latents and pixels."""
    latents = pipeline(source, target, output_type="latent", mode="render").images
    image = pipeline(source, target, output_type="np", mode="render").images[0]
    return torch.stack(list(latents)).cpu(), image


def _start(pipeline: StainFuserPipeline, source: Image) -> Tensor:
    """Return the padded source's latents, from which changes are counted."""
    rgb = image_list(source, "source")[0][None].to(pipeline.vae.device)
    padded = reflect_pad(rgb, pipeline.size_multiple)
    with torch.no_grad():
        return encode_latents(pipeline.vae, to_range(padded, "minus_one_one")).cpu()


def _seconds(pipeline: StainFuserPipeline, source: Image, target: StainTarget) -> float:
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        pipeline(source, target, output_type="np", mode="render")
        best = min(best, time.perf_counter() - began)
    return best


def count_sd21_operations(
    counts: Sequence[int | None] = (None, 256, 64), side_px: int = 512
) -> list[dict[str, Any]]:
    """Return rows of ``tokens`` and the GFLOP of a step of UNet and ControlNet of preset sd21.

    ``gflop`` is a step by itself, ``gflop_remembered`` one of many of the same image (see
    `sampling.remembered_context`). No weight is held in memory. None: all tokens of a target of
    `side_px`.
    """
    from torch.utils.flop_counter import FlopCounterMode

    side = side_px // 8
    _, unet, controlnet = empty_networks()
    for network in (unet, controlnet):
        network.set_attn_processor(WeightedTokenProcessor())
    with torch.device("meta"), torch.no_grad():
        sample, control = torch.zeros(1, 4, side, side), torch.zeros(1, 3, side_px, side_px)
        nothing = StainStatistics(*(torch.zeros(1, 0, 3),) * 3)
        rows = []
        for count in counts:
            tokens = count or side * side
            bias = torch.zeros(1, 1, tokens) if count else None
            target = StainTarget(torch.zeros(1, tokens, 4), bias, nothing)
            arguments = (unet, controlnet, sample, torch.zeros(1), control, target, None)
            with FlopCounterMode(display=False) as alone:
                predict(*arguments)
            with remembered_context(unet, controlnet):
                predict(*arguments)
                with FlopCounterMode(display=False) as later:
                    predict(*arguments)
            rows.append(
                {
                    "tokens": tokens,
                    "gflop": alone.get_total_flops() / 1e9,
                    "gflop_remembered": later.get_total_flops() / 1e9,
                }
            )
    return rows


def operation_rows() -> list[dict[str, Any]]:
    """Return `count_sd21_operations` as rows of a benchmark."""
    labels = {"arm": "sd21", "unit": "all"}
    return [
        {**labels, "data": f"target of {row.pop('tokens')} tokens", **row}
        for row in count_sd21_operations()
    ]
