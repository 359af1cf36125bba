"""Decide how a slide is normalised: an operator from its sampled tiles, or render."""

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
HEAD_NUMBERS = (
    "trust",
    "expected_de",
    "expected_structure",
    "kept_fraction",
    "source_nuclei_fraction",
    "target_nuclei_fraction",
)


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
    operator_from
        "head" or "model": what the operator comes from; None without one.
    confidence, remarks
        How sure the operator head is that source and target are H&E, [0, 1], and sentences that
        say what is doubtful; None without a head.
    head
        Numbers of the head's solution, or None: the error it expects (CIEDE2000), the gradient
        correlation with the source it expects, and the fraction of the change that was kept.
    """

    mode_used: str
    reason: str | None
    background_rgb: list[float]
    model_mpp: float
    tiles: list[list[int]]
    operator: dict[str, Any] | None
    residual: dict[str, Any] | None
    operator_from: str | None = None
    confidence: float | None = None
    remarks: list[str] | None = None
    head: dict[str, Any] | None = None

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


@dataclass(frozen=True)
class Sample:
    """Tiles of a slide that stand for it.

    Attributes
    ----------
    name
        The slide, for messages.
    corners, tiles
        (x, y) on the model's plane, and (S, S, 3) uint8 pixels; none: there is no tissue.
    white
        (3,) colour of the glass, RGB in [0, 255].
    mpp
        Resolution of the tiles, um per px.
    """

    name: str
    corners: list[Corner]
    tiles: list[NDArray[np.uint8]]
    white: NDArray[np.float64]
    mpp: float

    def plan(self, mode_used: str, reason: str | None = None, **parts: Any) -> Plan:
        """Return a plan for this slide."""
        background = [float(value) for value in self.white]
        tiles = [list(corner) for corner in self.corners]
        empty = {"operator": None, "residual": None}
        return Plan(mode_used, reason, background, self.mpp, tiles, **{**empty, **parts})


def plan_by_head(sample: Sample, solution: Any) -> Plan:
    """Return the plan to use the head's operator, `nn.operator_safety.Solution`."""
    operator = ColourOperator.from_json(solution.diagnostics["operator"]).to_json()
    return sample.plan(
        "operator", operator=operator, operator_from="head", **report_of_head(sample, solution)
    )


def plan_by_model(
    sample: Sample, options: NormalizeOptions, render: Renderer, rng: np.random.Generator
) -> Plan:
    """Let the diffusion model see the sample, fit the operator and judge it.

    `rng` draws the bootstrap of the residual. `render` learns the slide's colours from the sample.
    """
    stack = np.stack(sample.tiles)
    render.learn_slide(stack)
    remarks = report_of_head(sample, render.solution)
    if options.mode == "render":
        return sample.plan("render", **remarks)
    rendered = render_sample(render, stack, sample.corners, sample.name)
    fit = fit_and_validate(stack, rendered, sample.white, rng)
    mode_used, reason = _judge(fit, options.residual_limit_de)
    if reason:
        LOGGER.warning("%s: %s, so every tile is rendered", sample.name, reason)
    parts = {"operator": fit.operator.to_json(), "residual": _report(fit)}
    return sample.plan(mode_used, reason, operator_from="model", **parts, **remarks)


def report_of_head(sample: Sample, solution: Any) -> dict[str, Any]:
    """Return what a plan says of a head's solution, and warn of what is doubtful."""
    if solution is None:
        return {}
    found = solution.diagnostics
    remarks = list(found["remarks"])
    for remark in remarks:
        LOGGER.warning("%s: %s (confidence %.2f)", sample.name, remark, solution.confidence)
    numbers = {name: round(float(found[name]), 4) for name in HEAD_NUMBERS}
    confidence = round(float(solution.confidence), 4)
    return {"confidence": confidence, "remarks": remarks, "head": numbers}


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
