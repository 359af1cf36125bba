"""The arguments of a pipeline and of its call, checked: one sentence each."""

from __future__ import annotations

from typing import Any

import torch

from stainfuser.diffusion.objectives import objective_named
from stainfuser.errors import InputError
from stainfuser.presets import DIFFUSION_PARTS

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
MODES = ("operator", "render")
STARTS = ("source", "statistics", "operator_head")


def check_parts(parts: dict[str, Any], head: Any, start: str) -> None:
    """Raise `InputError` for a model that can do nothing, or not what its configuration says."""
    missing = [name for name in DIFFUSION_PARTS if parts[name] is None]
    if missing and (head is None or len(missing) < len(parts)):
        wrong = f"it has no {missing[0]}"
        raise InputError("model", wrong, "give all of its parts, or an operator head alone")
    if start not in STARTS:
        raise InputError("start", f"{start!r} is unknown", f"choose one of {', '.join(STARTS)}")
    if start == "operator_head" and head is None:
        raise InputError("model", "it starts from an operator head and has none", "add its head")


def checked_mode(mode: str, has_head: bool, can_render: bool, wants_latents: bool) -> str:
    """Return the mode, if the model has what it takes."""
    if mode not in MODES:
        remedy = f"choose one of {', '.join(MODES)}, or None"
        raise InputError("mode", f"{mode!r} is unknown", remedy)
    if mode == "operator" and not has_head:
        raise InputError("mode", "the model has no operator head", "use mode='render'")
    if mode == "render" and not can_render:
        raise InputError("mode", "the model has no diffusion part", "use mode='operator'")
    if mode == "operator" and wants_latents:
        raise InputError("mode", "an operator has no latents", "use mode='render'")
    return mode


def checked_steps(steps: int | None, objective: str, output_type: str, batch_size: int) -> int:
    """Return the number of network calls; check the output type and the batch size, too."""
    if output_type not in OUTPUT_TYPES:
        raise InputError(
            "output_type", f"{output_type!r} is unknown", f"choose one of {', '.join(OUTPUT_TYPES)}"
        )
    steps = objective_named(objective).default_steps if steps is None else steps
    for name, value in (("num_inference_steps", steps), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(name, f"{value!r} is not a positive integer", "pass 1 or more")
    return steps


def check_count(name: str, found: int, sources: int) -> None:
    """Raise `InputError` unless there is one for all sources, or one for each."""
    if found not in (1, sources):
        raise InputError(
            name, f"{found} for {sources} sources", "pass one for all, or one for each source"
        )


def initial_seed(generator: torch.Generator | int | None) -> int:
    """Return the seed of the initial noise."""
    if isinstance(generator, torch.Generator):
        # Drawing moves the generator on, so that two calls with it differ, as usual.
        return int(torch.randint(2**62, (1,), generator=generator, device=generator.device).item())
    return 0 if generator is None else int(generator)
