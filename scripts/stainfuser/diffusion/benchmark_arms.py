"""What is compared in a benchmark: the model's ways of normalising, classical methods, nothing.

An `Arm` is fitted to a target once and then called on every source: ``arm(target)(source)``, both
(H, W, 3) uint8 RGB, each image a slide of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.operator_mode import colour_operator
from stainfuser.diffusion.operator_trial import Trial
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.stain.classical import BENCHMARK_METHODS, fit_classical
from stainfuser.stain.operators import (
    apply_lookup_table,
    fit_operator,
    tissue_boxes,
)
from stainfuser.stain.tissue import background_colour

Image = NDArray[np.uint8]
Arm = Callable[[Image], Callable[[Image], Image]]

IDENTITY, OPERATOR, RENDER, COMBINED = "identity", "operator_head", "render", "render+operator"
# From the most to the least elaborate.
MODEL_ARMS = (OPERATOR, RENDER, COMBINED)
# An operator that was fitted to the truth: what this kind of map can reach.
ORACLE = "operator fitted to the truth"
# An operator that was fitted to the reference's tissue in both stains: what a method that knew all
# about the reference, and nothing of the truth, could reach.
REFERENCE_ORACLE = "operator fitted to the reference in both stains"
# From the one that knows less to the one that knows more.
ORACLES = (REFERENCE_ORACLE, ORACLE)
# Sources whose summaries are kept.
REMEMBERED = 64


def peer_arms(methods: Sequence[str] = BENCHMARK_METHODS) -> dict[str, Arm]:
    """Return doing nothing and the classical methods."""
    return {IDENTITY: _nothing, **{name: partial(_classical, name) for name in methods}}


def head_arm(head: OperatorHead) -> Arm:
    """Return the operator head by itself."""
    return partial(_by_head, head, _Summaries(head))


def model_arms(pipe: Any) -> dict[str, Arm]:
    """Return what a `StainFuserPipeline` offers: its operator head, its diffusion part, both.

    The first gives the pixels of ``pipe(source, target, mode="operator")``, and sees a source only
    once; ``render+operator`` fits an operator to what the diffusion part made of the source.
    """
    arms: dict[str, Arm] = {}
    if pipe.operator_head is not None:
        arms[OPERATOR] = head_arm(pipe.operator_head)
    if pipe.can_render:
        arms[RENDER] = partial(_by_rendering, pipe)
        arms[COMBINED] = partial(_by_fitted_operator, arms[RENDER])
    return arms


def _nothing(target: Image) -> Callable[[Image], Image]:
    return lambda source: source


def _classical(method: str, target: Image) -> Callable[[Image], Image]:
    normalize = fit_classical(method, target)
    return lambda source: normalize(source).image


class _Summaries:
    """What a head made of the last sources it saw: each is recoloured to many targets."""

    def __init__(self, head: OperatorHead) -> None:
        self.head = head
        self.known: dict[int, tuple[Image, Any]] = {}

    def __call__(self, source: Image) -> Any:
        """Return ``head.summarise([source])``; the array is kept, so that its id stays its own."""
        if id(source) not in self.known:
            if len(self.known) >= REMEMBERED:
                self.known.pop(next(iter(self.known)))
            self.known[id(source)] = (source, self.head.summarise([source]))
        return self.known[id(source)][1]


def _by_head(head: OperatorHead, summarise: _Summaries, target: Image) -> Callable[[Image], Image]:
    wanted = head.summarise([target])

    def normalize(source: Image) -> Image:
        solution = head.solve(summarise(source), wanted, Trial([source]))
        return apply_lookup_table(source, colour_operator(solution).lookup_table())

    return normalize


def _by_rendering(pipe: Any, target: Image) -> Callable[[Image], Image]:
    encoded = pipe.encode_target(target)
    return lambda source: pipe(source, encoded, mode="render", output_type="np").images[0]


def _by_fitted_operator(render: Arm, target: Image) -> Callable[[Image], Image]:
    normalize = render(target)
    return lambda source: operated(source, normalize(source))


def operated(source: Image, wanted: Image) -> Image:
    """Return `source` through the colour operator that comes nearest to `wanted`, its own pixels.

    With the truth as `wanted`, no operator can do much better.
    """
    return operated_as(source, source, wanted)


def operated_as(source: Image, before: Image, after: Image) -> Image:
    """Return `source` through the operator that brings the image `before` nearest to `after`."""
    white = background_colour(before, np.ones(before.shape[:2], bool))[0].astype(np.float64)
    operator = fit_operator(*tissue_boxes(before, after, white), white)
    return apply_lookup_table(source, operator.lookup_table())
