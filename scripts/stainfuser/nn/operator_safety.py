"""When an operator is not safe it shrinks towards doing nothing, and says why.

Two things are asked of it: that both sides are H&E-stained tissue, which the head has learned to
tell, and that the structure of the tissue survives, which a trial shows or the class sums predict.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.nn.class_matcher import Match
from stainfuser.nn.class_statistics import ClassStatistics
from stainfuser.nn.od_torch import od_to_rgb
from stainfuser.nn.operator_solve import (
    absolute_coefficients,
    predicted_structure,
)

# Confidence below which nothing is changed, and above which the operator is used as it is.
NO_CONFIDENCE, FULL_CONFIDENCE = 0.65, 0.86
# Deviation of the OD over all pixels below which an image is one even colour, and above which not.
EVEN_OD = (0.004, 0.012)
# Least expected gradient correlation with the source.
MIN_STRUCTURE = 0.966
SHRINKING_STEPS = 8
# `stain.operators.ColourOperator` trusts colours within so many deviations of the centre; classes
# above this share of the pixels must be.
TRUSTED_SIGMAS, SEEN_FRACTION = 3.0, 1e-4
# Share of nuclei, of the tissue, below which nuclei of this side are called rare.
RARE_NUCLEI_FRACTION = 0.01
# Coefficients are rounded so that the last bits of a sum never reach a pixel.
DECIMALS = 6


class Solution(NamedTuple):
    """An operator and how far to trust it.

    `coefficients` (10, 3) float64 on the quadratic features of the OD; `confidence` in [0, 1];
    `diagnostics`: JSON-able; its ``operator`` holds what `stain.operators.ColourOperator` needs.
    """

    coefficients: NDArray[np.float64]
    confidence: float
    diagnostics: dict[str, Any]


def safe_solution(
    match: Match,
    source: ClassStatistics,
    target: ClassStatistics,
    source_logit: float,
    target_logit: float,
    trial: Callable[[dict[str, Any]], bool] | None = None,
) -> Solution:
    """Shrink a match of one source and one target (B = 1) to what is safe.

    `source_logit` and `target_logit` are the log-odds that each side is H&E. Whether an operator is
    safe is seen in a `trial` of it (as in a solution's diagnostics), else whether structure
    survives is predicted from the statistics.
    """
    belief = [float(torch.sigmoid(torch.tensor(x))) for x in (source_logit, target_logit)]
    belief = [b * _evenness_penalty(side) for b, side in zip(belief, (source, target), strict=True)]
    confidence = belief[0] * belief[1]
    white = match.white.double()
    wanted = _Map(match.relative.double(), match.gains.double())
    trust = _ramp(confidence, NO_CONFIDENCE, FULL_CONFIDENCE)
    region = _trusted_region(source, white)

    def keeps(operator: _Map) -> bool:
        if trial is not None:
            return trial(_as_json(operator, white, region))
        coefficients = absolute_coefficients(operator.relative, white)
        return float(predicted_structure(coefficients, source)[0]) >= MIN_STRUCTURE

    safe, kept = _structure_safe(wanted, keeps)
    trusted = _mixed(_gains_only(torch.ones_like(safe.gains)), safe, trust)
    relative = torch.round(trusted.relative, decimals=DECIMALS)
    coefficients = absolute_coefficients(relative, white)
    nuclei = [_nuclei_fraction(side) for side in (source, target)]
    diagnostics = {
        "source_is_he": belief[0],
        "target_is_he": belief[1],
        "expected_de": float(match.log_error[0].exp()),
        "trust": trust,
        "kept_fraction": kept,
        "expected_structure": float(predicted_structure(coefficients, source)[0]),
        "source_nuclei_fraction": nuclei[0],
        "target_nuclei_fraction": nuclei[1],
        "source_tissue_fraction": 1.0 - float(source.group_fractions[0, 0]),
        "target_tissue_fraction": 1.0 - float(target.group_fractions[0, 0]),
        "remarks": _remarks(belief, nuclei, kept),
        "operator": _as_json(trusted, white, region),
    }
    return Solution(coefficients[0].numpy(), confidence, diagnostics)


class _Map(NamedTuple):
    """An operator around white, (B, 9, 3), and gains, (B, 3), for colours unlike those seen."""

    relative: Tensor
    gains: Tensor


def _structure_safe(wanted: _Map, keeps: Callable[[_Map], bool]) -> tuple[_Map, float]:
    """Return the operator, weakened as little as keeps the structure, and what was kept of it.

    It is weakened towards plain gains per channel, which move the colour of the tissue and hardly
    touch its structure; where even they do, towards no change if that keeps more.
    """
    if keeps(wanted):
        return wanted, 1.0
    ways = [_gains_only(wanted.gains)]
    if not keeps(ways[0]):
        identity = _gains_only(torch.ones_like(wanted.gains))
        ways = [_weakened(ways[0], identity, keeps)[0], identity]
    choices = [_weakened(wanted, safe, keeps) for safe in ways]
    return max(choices, key=lambda choice: choice[1])


def _weakened(wanted: _Map, safe: _Map, keeps: Callable[[_Map], bool]) -> tuple[_Map, float]:
    """Return the mixture of two operators nearest to the first that keeps the structure."""
    low, high = 0.0, 1.0
    for _ in range(SHRINKING_STEPS):
        middle = (low + high) / 2
        is_safe = keeps(_mixed(safe, wanted, middle))
        low, high = (middle, high) if is_safe else (low, middle)
    return _mixed(safe, wanted, low), low


def _mixed(first: _Map, second: _Map, share: float) -> _Map:
    """Return the operator that lies between two, by the share of the second."""
    return _Map(*(torch.lerp(a, b, share) for a, b in zip(first, second, strict=True)))


def _gains_only(gains: Tensor) -> _Map:
    """Return the operator of gains per channel, (B, 3)."""
    relative = gains.new_zeros(*gains.shape[:-1], 9, 3)
    relative[..., :3, :] = torch.diag_embed(gains)
    return _Map(relative, gains)


def _evenness_penalty(side: ClassStatistics) -> float:
    """Return 0 for one even colour, which no tissue has, and 1 for what varies."""
    sums = side.groups[0].double().sum(0)
    mean = sums[1:4] / sums[0]
    # Of the products the squares: rr, gg, bb of the upper triangle.
    variance = sums[[4, 7, 9]] / sums[0] - mean.square()
    return _ramp(float(variance.mean().clamp(min=0.0).sqrt()), *EVEN_OD)


def _nuclei_fraction(side: ClassStatistics) -> float:
    """Return the share of nuclei in the tissue."""
    _, nuclei, other = side.group_fractions[0].tolist()
    return nuclei / max(nuclei + other, 1e-6)


def _remarks(belief: list[float], nuclei: list[float], kept: float) -> list[str]:
    """Say in words what makes the result doubtful."""
    remarks = []
    for name, is_he, share in zip(("source", "target"), belief, nuclei, strict=True):
        if is_he < FULL_CONFIDENCE:
            remarks.append(f"the {name} does not look like H&E-stained tissue")
        elif share < RARE_NUCLEI_FRACTION:
            remarks.append(f"the {name} shows hardly any nuclei")
    if kept < 0.99:
        remarks.append("the change was weakened to keep the structure of the tissue")
    return remarks


def _trusted_region(source: ClassStatistics, white: Tensor) -> tuple[Tensor, Tensor]:
    """Return centre and precision of the colours on which the operator is trusted."""
    weights = source.fractions[0].sqrt()
    weights = weights / weights.sum()
    offsets = source.means()[0] - white[0]
    centre = weights @ offsets
    spread = source.covariances()[0] + (offsets - centre)[:, :, None] * (offsets - centre)[:, None]
    covariance = (weights[:, None, None] * spread).sum(0) + 1e-4 * torch.eye(3, dtype=spread.dtype)
    precision = torch.linalg.inv(covariance)
    # Every class the slide holds lies within the distance at which the operator is trusted.
    seen = source.fractions[0] > SEEN_FRACTION
    reach = (offsets - centre).abs() + 2 * source.spreads()[0].abs()
    reach = reach * torch.where(offsets < centre, -1.0, 1.0)
    distances = torch.einsum("ki,ij,kj->k", reach, precision, reach)[seen]
    return centre, precision * (TRUSTED_SIGMAS**2 / distances.max().clamp(min=TRUSTED_SIGMAS**2))


def _as_json(operator: _Map, white: Tensor, region: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Return what `stain.operators.ColourOperator` reads."""
    parts = {
        "white": od_to_rgb(white[0]),
        "coefficients": operator.relative[0],
        "gains": operator.gains[0],
        "centre": region[0],
        "precision": region[1],
    }
    return {name: torch.round(part, decimals=DECIMALS).tolist() for name, part in parts.items()}


def _ramp(value: float, low: float, high: float) -> float:
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)
