"""Decide how a slide is normalised: fit the operator on a sample, or render."""

from __future__ import annotations

import logging
import math
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.rendering import BATCH_SIZE, Renderer
from stainfuser.logs import progress
from stainfuser.stain.operators import ColourOperator, OperatorFit, fit_and_validate

LOGGER = logging.getLogger("stainfuser")
Corner = tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What will be done with a slide or an image; JSON-able, so that a killed run keeps to it.

    Attributes
    ----------
    mode_used
        "operator", "render", or "unchanged" where there is no tissue.
    reason
        Why it is not the mode asked for, else None.
    background_rgb
        Colour of the glass, [0, 255].
    model_mpp
        um per px at which the model saw the tissue.
    tiles
        Corners [x, y] of the sampled tiles, px at `model_mpp`.
    operator
        `ColourOperator.to_json`, or None.
    residual
        What `OperatorFit` measured, or None; infinite values are None.
    """

    mode_used: str
    reason: str | None
    background_rgb: list[float]
    model_mpp: float
    tiles: list[list[int]]
    operator: dict[str, Any] | None
    residual: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Rebuild a plan from `to_json`."""
        return cls(**content)

    def colour_operator(self) -> ColourOperator:
        """Return the operator of mode "operator"."""
        assert self.operator is not None
        return ColourOperator.from_json(self.operator)


def make_plan(
    name: str,
    options: NormalizeOptions,
    corners: list[Corner],
    source: list[NDArray[np.uint8]],
    render: Renderer,
    white: NDArray[np.float64],
    model_mpp: float,
    rng: np.random.Generator,
) -> Plan:
    """Let the model see a sample of a slide, fit the operator and judge it.

    Parameters
    ----------
    name
        The slide, for messages.
    corners, source
        (x, y) and (S, S, 3) uint8 pixels of the sampled tiles; none: there is no tissue.
    white
        (3,) colour of the glass, RGB in [0, 255].
    rng
        Draws the bootstrap of the residual.

    `render` learns the slide's colours from the sample.
    """
    background = [float(value) for value in white]
    tiles = [list(corner) for corner in corners]
    if not corners:
        return Plan("unchanged", "there is no tissue", background, model_mpp, [], None, None)
    stack = np.stack(source)
    render.learn_slide(stack)
    if options.mode == "render":
        return Plan("render", None, background, model_mpp, tiles, None, None)
    fit = fit_and_validate(stack, render_sample(render, stack, corners, name), white, rng)
    mode_used, reason = _judge(fit, options.residual_limit_de)
    if reason:
        LOGGER.warning("%s: %s, so every tile is rendered", name, reason)
    operator = fit.operator.to_json()
    return Plan(mode_used, reason, background, model_mpp, tiles, operator, _report(fit))


def render_sample(
    render: Renderer, source: NDArray[np.uint8], corners: list[Corner], name: str
) -> NDArray[np.uint8]:
    """Run the model on sampled tiles, (N, S, S, 3) uint8, in batches with a progress bar."""
    starts = range(0, len(source), BATCH_SIZE)
    parts = [
        render(
            source[start : start + BATCH_SIZE],
            [(y, x) for x, y in corners[start : start + BATCH_SIZE]],
        )
        for start in progress(starts, f"{name}: model on sampled tiles", unit="batch")
    ]
    return np.concatenate(parts)


def _judge(fit: OperatorFit, limit_de: float) -> tuple[str, str | None]:
    if fit.residual_de <= limit_de:
        return "operator", None
    if math.isinf(fit.residual_de):
        return "render", "the sampled tiles hold too little tissue to fit an operator"
    return (
        "render",
        f"the operator's residual {fit.residual_de:.2f} is over the limit of {limit_de:g}",
    )


def _report(fit: OperatorFit) -> dict[str, Any]:
    values = {
        "median_de": fit.residual_de,
        "median_de_95_percent_low": fit.residual_de_range[0],
        "median_de_95_percent_high": fit.residual_de_range[1],
        "median_px_de": fit.residual_px_de,
    }
    finite = {key: round(v, 4) if math.isfinite(v) else None for key, v in values.items()}
    return {**finite, "tiles": fit.tiles, "on_held_out_tiles": fit.held_out}
