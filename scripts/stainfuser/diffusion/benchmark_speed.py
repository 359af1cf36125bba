"""How long a 512 px tile takes on a CPU: the model, and Stable Diffusion's size with 20 steps.

Random weights serve for speed: every network call of `sd21` costs the same whatever it has
learned.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from stainfuser.diffusion.benchmark_arms import OPERATOR, RENDER, Image
from stainfuser.diffusion.head_evaluation import Row
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.published import PUBLISHED_PATCH_PX, SD21_BASE, empty_networks
from stainfuser.diffusion.torch_threads import torch_threads
from stainfuser.seeds import generator
from stainfuser.stain.optical_density import od_to_rgb

SPEED_DATA = "speed, 512 px tile"
ANEW_DATA = "speed, 512 px tile, target encoded anew"
SD21_ARM = "sd21, 20 steps"
SD21_STEPS, SD21_CALLS = 20, 21
# Calls after which it is known whether all will be timed.
TIMED_CALLS = 4
REPEATS = 7


class _TimeIsUpError(Exception):
    """Raised inside a network call to end a run of which enough is known."""


def speed_tile(side_px: int = PUBLISHED_PATCH_PX, seed: int = 0) -> Image:
    """Return stained noise, (side_px, side_px, 3) uint8 RGB: what is in a tile costs no time."""
    amounts = generator(seed, "benchmark", "speed").gamma(2.0, 0.2, (side_px, side_px, 2))
    return od_to_rgb(amounts @ np.array([[0.65, 0.7, 0.29], [0.07, 0.99, 0.11]]))


def model_speed(
    pipe: Any, threads: int, source: Image, target: Image, repeats: int = REPEATS
) -> list[Row]:
    """Return seconds of every arm of a model, `repeats` times, the target encoded before or anew.

    `source` and `target` are (H, W, 3) uint8 RGB.
    """
    rows: list[Row] = []
    with torch_threads(threads):
        encoded = pipe.encode_target(target)
        for name, call in _calls(pipe, source).items():
            for data, seen in ((SPEED_DATA, encoded), (ANEW_DATA, target)):
                call(seen)
                times = [_seconds(partial(call, seen)) for _ in range(repeats)]
                rows += [_row(name, data, seconds) for seconds in times]
    return rows


def _calls(pipe: Any, source: Image) -> dict[str, Callable[[Any], Any]]:
    """Return what a user calls with a target, for every arm but ``render+operator``."""

    def call(mode: str, target: Any) -> Any:
        return pipe(source, target, mode=mode, output_type="np")

    offered = {OPERATOR: pipe.operator_head is not None, RENDER: pipe.can_render}
    modes = {OPERATOR: "operator", RENDER: "render"}
    return {arm: partial(call, modes[arm]) for arm, is_there in offered.items() if is_there}


def sd21_speed(
    pipe: Any, threads: int, source: Image, target: Image, limit_s: float
) -> tuple[list[Row], float]:
    """Return rows of `SD21_ARM` and the seconds it takes for one tile.

    All of its 21 network calls are run, unless the first `TIMED_CALLS` show that they would take
    longer than `limit_s`: then the rest is extrapolated from these, and the row says so.
    """
    with torch_threads(threads):
        start = time.perf_counter()
        encoded = pipe.encode_target(target)
        encoding = time.perf_counter() - start
        marks: list[float] = []

        def mark(*_: Any) -> None:
            marks.append(time.perf_counter())
            calls = len(marks) - 1
            if calls >= TIMED_CALLS and (marks[-1] - marks[0]) * SD21_CALLS / calls > limit_s:
                raise _TimeIsUpError

        # Between two calls of the UNet lies one of the ControlNet, and the scheduler.
        hook = pipe.unet.register_forward_pre_hook(mark)
        start = time.perf_counter()
        try:
            pipe(source, encoded, num_inference_steps=SD21_STEPS, output_type="np")
            total = encoding + time.perf_counter() - start
            return [_row(SD21_ARM, SPEED_DATA, total)], total
        except _TimeIsUpError:
            per_call = (marks[-1] - marks[0]) / (len(marks) - 1)
        finally:
            hook.remove()
        latent_px = source.shape[0] // pipe.latent_factor
        latents = torch.zeros(1, pipe.unet.config.in_channels, latent_px, latent_px)
        with torch.no_grad():
            decoding = _seconds(lambda: pipe.vae.decode(latents.to(pipe.vae.dtype)))
        total = encoding + SD21_CALLS * per_call + decoding
        row = _row(SD21_ARM, SPEED_DATA, total)
        row[f"seconds_from_{len(marks) - 1}_of_{SD21_CALLS}_calls"] = row.pop("seconds")
        return [row], total


def times_faster(rows: list[Row], sd21_seconds: float) -> list[Row]:
    """Return, for every arm of the model, how many of its tiles fit in one of `sd21`."""
    faster = []
    for arm in (OPERATOR, RENDER):
        own = [row["seconds"] for row in rows if row["arm"] == arm and row["data"] == SPEED_DATA]
        if own:
            value = sd21_seconds / float(np.mean(own))
            labels = {"arm": arm, "data": SPEED_DATA, "unit": "512"}
            faster.append(labels | {"times_faster_than_sd21": value})
    return faster


def random_sd21(
    config: dict[str, dict[str, Any]] | None = None, context_tokens: int | None = None
) -> StainFuserPipeline:
    """Return preset `sd21` of Stable Diffusion 2.1's size (or of `config`) with random weights."""
    from diffusers import PNDMScheduler

    config = SD21_BASE if config is None else config
    # Without memory first: initialising a billion numbers twice takes a minute.
    vae, unet, controlnet = empty_networks(config)
    for network in (vae, unet, controlnet):
        network.to_empty(device="cpu")
        _fill(network)
    return StainFuserPipeline(
        vae=vae,
        unet=unet,
        controlnet=controlnet,
        scheduler=PNDMScheduler(**config["scheduler"]),
        preset="sd21",
        objective="epsilon",
        patch_size=PUBLISHED_PATCH_PX,
        context_tokens=context_tokens,
        target_range="zero_one",
        control_range="zero_one",
    )


@torch.no_grad()
def _fill(network: nn.Module) -> None:
    """Give every parameter a value of ordinary size: denormal numbers would be slow."""
    draw = torch.Generator().manual_seed(0)
    pattern = torch.randn(1 << 16, generator=draw) * 0.02
    for name, parameter in network.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
        else:
            flat = parameter.view(-1)
            repeats = -(-flat.numel() // pattern.numel())
            flat.copy_(pattern.repeat(repeats)[: flat.numel()])


def _row(arm: str, data: str, seconds: float) -> Row:
    return {"arm": arm, "data": data, "unit": "512", "seconds": seconds}


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
