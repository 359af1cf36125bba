"""From images to what the networks see: value ranges, latents, and a target as `StainTarget`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stainfuser.diffusion.context import StainTarget, flatten_tokens, reduce_tokens
from stainfuser.diffusion.images import reflect_pad
from stainfuser.errors import InputError
from stainfuser.nn.stain_statistics import (
    StainStatistics,
    match_statistics,
    stain_statistics,
)

# A target image is encoded in windows of at most this side, px; their tokens are put together.
WINDOW_PX = 512
# Most windows along a side of one target image, at equal distances.
WINDOWS_PER_SIDE = 4


def to_range(rgb: Tensor, name: str) -> Tensor:
    """Map [0, 1] to the named value range, "zero_one" or "minus_one_one"."""
    return rgb * 2.0 - 1.0 if name == "minus_one_one" else rgb


def encode_latents(vae: Any, images: Tensor) -> Tensor:
    """(N, 3, H, W) in the range the VAE is to see → scaled (N, C, h, w) mode of the posterior."""
    return vae.encode(images.to(vae.dtype)).latent_dist.mode() * vae.config.scaling_factor


def encode_start(
    vae: Any, rgb: Tensor, own: StainStatistics, other: StainStatistics, start: str
) -> Tensor:
    """Return the latents a bridge starts from: (N, 3, H, W) in [0, 1] → (N, C, h, w).

    With start "operator_head" `rgb` are the starts already (`operator_start.start_image`).
    """
    if start == "statistics":
        rgb = match_statistics(rgb, own, other)
    return encode_latents(vae, to_range(rgb, "minus_one_one"))


def encode_target(
    vae: Any, image: Tensor, factor: int, value_range: str, context_tokens: int | None
) -> StainTarget:
    """Encode one (3, H, W) image in [0, 1].

    With `context_tokens` a large image is seen through up to 16 windows; without, all tokens of
    the central window are kept, as published.
    """
    device = vae.device
    windows = target_windows(image, 1 if context_tokens is None else WINDOWS_PER_SIDE)
    tokens = []
    for window in windows:
        pixels = reflect_pad(window[None].to(device), factor)
        tokens.append(flatten_tokens(encode_latents(vae, to_range(pixels, value_range))).float())
    every, bias = reduce_tokens(torch.cat(tokens, dim=1), context_tokens)
    return StainTarget(every, bias, stain_statistics(image[None].to(device)))


def target_windows(image: Tensor, per_side: int) -> list[Tensor]:
    """Cut (3, H, W) into at most `per_side` x `per_side` windows, none larger than `WINDOW_PX`."""
    tops, lefts = (window_offsets(length, per_side) for length in image.shape[1:])
    return [
        image[:, top : top + WINDOW_PX, left : left + WINDOW_PX] for top in tops for left in lefts
    ]


def join_targets(targets: list[StainTarget]) -> StainTarget:
    """Put single targets into one batch; all must have as many tokens."""
    lengths = sorted({target.tokens.shape[1] for target in targets})
    if len(lengths) > 1:
        raise InputError(
            "target",
            f"the targets give different numbers of tokens ({lengths})",
            "pass targets of equal size",
        )
    biases = [target.token_bias for target in targets if target.token_bias is not None]
    statistics = [target.statistics for target in targets]
    return StainTarget(
        tokens=torch.cat([target.tokens for target in targets]),
        token_bias=torch.cat(biases) if biases else None,
        statistics=StainStatistics.of_sample(torch.cat([s.sample for s in statistics])),
    )


def window_offsets(length: int, per_side: int) -> list[int]:
    """Return where windows begin along a side; a single one lies in the centre."""
    room = max(length - WINDOW_PX, 0)
    count = min(-(-length // WINDOW_PX), per_side)
    if count == 1:
        return [room // 2]
    return [round(room * index / (count - 1)) for index in range(count)]
