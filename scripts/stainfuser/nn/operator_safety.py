"""When an operator is not safe it shrinks towards doing nothing, and says why.

Two things are asked of it: that both sides are H&E-stained tissue, which the head has learned to
tell, and that the structure of the tissue survives, which follows from the class sums.
"""

from __future__ import annotations

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
NO_CONFIDENCE, FULL_CONFIDENCE = 0.25, 0.75
# Least expected gradient correlation with the source.
MIN_STRUCTURE = 0.97
SHRINKING_STEPS = 20
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
) -> Solution:
    """Shrink a match of one source and one target (B = 1) to what is safe.

    `source_logit` and `target_logit` are the log-odds that each side is H&E.
    """
    belief = [float(torch.sigmoid(torch.tensor(x))) for x in (source_logit, target_logit)]
    confidence = belief[0] * belief[1]
    relative, white = match.relative.double(), match.white.double()
    trust = _ramp(confidence, NO_CONFIDENCE, FULL_CONFIDENCE)
    kept = _kept_for_structure(relative, white, source, trust)
    relative = torch.round(_shrunk(relative, kept), decimals=DECIMALS)
    coefficients = absolute_coefficients(relative, white)
    nuclei = [_nuclei_fraction(side) for side in (source, target)]
    diagnostics = {
        "source_is_he": belief[0],
        "target_is_he": belief[1],
        "expected_de": float(match.log_error[0].exp()),
        "kept_fraction": kept,
        "expected_structure": float(predicted_structure(coefficients, source)[0]),
        "source_nuclei_fraction": nuclei[0],
        "target_nuclei_fraction": nuclei[1],
        "source_tissue_fraction": 1.0 - float(source.group_fractions[0, 0]),
        "target_tissue_fraction": 1.0 - float(target.group_fractions[0, 0]),
        "remarks": _remarks(belief, nuclei, kept, trust),
        "operator": _operator_parts(relative, white, match.gains.double(), kept, source),
    }
    return Solution(coefficients[0].numpy(), confidence, diagnostics)


def _kept_for_structure(
    relative: Tensor, white: Tensor, source: ClassStatistics, trust: float
) -> float:
    """Return the largest share of the operator, at most `trust`, that keeps the structure."""

    def is_safe(share: float) -> bool:
        coefficients = absolute_coefficients(_shrunk(relative, share), white)
        return float(predicted_structure(coefficients, source)[0]) >= MIN_STRUCTURE

    if is_safe(trust):
        return trust
    low, high = 0.0, trust
    for _ in range(SHRINKING_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_safe(middle) else (low, middle)
    return low


def _shrunk(relative: Tensor, share: float) -> Tensor:
    identity = torch.zeros_like(relative)
    identity[..., :3, :] = torch.eye(3, dtype=relative.dtype)
    return identity + share * (relative - identity)


def _nuclei_fraction(side: ClassStatistics) -> float:
    """Return the share of nuclei in the tissue."""
    _, nuclei, other = side.group_fractions[0].tolist()
    return nuclei / max(nuclei + other, 1e-6)


def _remarks(belief: list[float], nuclei: list[float], kept: float, trust: float) -> list[str]:
    """Say in words what makes the result doubtful."""
    remarks = []
    for name, is_he, share in zip(("source", "target"), belief, nuclei, strict=True):
        if is_he < FULL_CONFIDENCE:
            remarks.append(f"the {name} does not look like H&E-stained tissue")
        elif share < RARE_NUCLEI_FRACTION:
            remarks.append(f"the {name} shows hardly any nuclei")
    if kept < 0.99 * trust:
        remarks.append("the change was weakened to keep the structure of the tissue")
    return remarks


def _operator_parts(
    relative: Tensor, white: Tensor, gains: Tensor, kept: float, source: ClassStatistics
) -> dict[str, Any]:
    """Return white, coefficients, gains, and centre and precision of the trusted colours."""
    weights = source.fractions[0].sqrt()
    weights = weights / weights.sum()
    offsets = source.means()[0] - white[0]
    centre = weights @ offsets
    spread = source.covariances()[0] + (offsets - centre)[:, :, None] * (offsets - centre)[:, None]
    covariance = (weights[:, None, None] * spread).sum(0) + 1e-4 * torch.eye(3, dtype=spread.dtype)
    parts = {
        "white": od_to_rgb(white[0]),
        "coefficients": relative[0],
        "gains": 1 + kept * (gains[0] - 1),
        "centre": centre,
        "precision": torch.linalg.inv(covariance),
    }
    return {name: torch.round(part, decimals=DECIMALS).tolist() for name, part in parts.items()}


def _ramp(value: float, low: float, high: float) -> float:
    t = min(max((value - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)
