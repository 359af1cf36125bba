"""Statistics of the same tissue classes in source and target → the operator between them.

Attention over the classes says how far each correspondence can be trusted and mends those that
cannot (a class the target hardly shows); the operator itself is solved for, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from stainfuser.nn.class_statistics import EXTRA_CLASSES, ClassStatistics
from stainfuser.nn.operator_solve import (
    LINEAR,
    channel_gains,
    feature_changes,
    mean_features,
    ridge,
    tissue_mean,
    white_point,
)

# Class means are moved by no more than this, OD, on the network's word alone.
MAX_SHIFT_OD = 0.25
MAX_LOG_WEIGHT = 5.0
# Pull of the ridge on linear and quadratic features before training: little beside the mass.
LINEAR_PULL, QUADRATIC_PULL = 1e-4, 1e-3
# Points a deviation off the mean weigh so much beside it; all count the less the darker they are,
# as the eye sees a difference of OD.
AXIS_WEIGHT = 0.25
# Per class, source and target: mean (3), axes (9), share; misfit of the mean (3), distance.
TOKEN_INPUTS = 30


@dataclass(frozen=True)
class OperatorHeadParams:
    """Architecture of an operator head.

    Attributes
    ----------
    classes
        Learned tissue classes.
    widths
        Channels at 1/2, 1/4 and 1/8 of the resolution.
    context_width, token_width
        Width of the slide's context and of the tokens of the classes.
    token_layers, token_heads
        Attention layers over the classes, and their heads.
    max_side_px
        Larger tiles are averaged by a whole factor until they fit, as in training.
    """

    classes: int
    widths: tuple[int, int, int]
    context_width: int
    token_width: int
    token_layers: int
    token_heads: int
    max_side_px: int

    def to_dict(self) -> dict[str, object]:
        """Return the parameters as JSON-able values."""
        return asdict(self) | {"widths": list(self.widths)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`; raises `TypeError` for unknown or missing names."""
        return cls(**{**content, "widths": tuple(content["widths"])})


class Match(NamedTuple):
    """What the head makes of (B) sources and targets.

    `relative` (B, 9, 3): the operator on OD relative to `white` (B, 3), the source's glass;
    `gains` (B, 3) per channel, its starting point; `weights` (B, K) of the class correspondences;
    `log_error` (B,): logarithm of the colour difference expected of the result.
    """

    relative: Tensor
    white: Tensor
    gains: Tensor
    weights: Tensor
    log_error: Tensor


class ClassMatcher(nn.Module):
    """Statistics of the same classes in source and target → the operator between them."""

    def __init__(self, params: OperatorHeadParams) -> None:
        super().__init__()
        width = params.token_width
        self.names = nn.Parameter(0.02 * torch.randn(params.classes + EXTRA_CLASSES, width))
        self.first_weight = nn.Sequential(nn.Linear(TOKEN_INPUTS, 32), nn.SiLU(), nn.Linear(32, 1))
        self.read = nn.Linear(TOKEN_INPUTS, width)
        self.look = nn.Linear(2 * params.context_width, width)
        self.layers = nn.ModuleList(
            _attention_layer(width, params.token_heads) for _ in range(params.token_layers)
        )
        # Per class: log weight, trust in the mean, trust in the axes (3), shift of the mean (3).
        self.write = nn.Linear(width, 8)
        # Log error, and how much harder or softer the two pulls are.
        self.judge = nn.Linear(width, 3)
        for layer in (self.write, self.judge, self.first_weight[-1]):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        with torch.no_grad():
            self.write.bias[1:5] = 3.0
        self.log_pull = nn.Parameter(torch.tensor([LINEAR_PULL, QUADRATIC_PULL]).log())

    def forward(
        self, source: ClassStatistics, target: ClassStatistics, look: Tensor, target_look: Tensor
    ) -> Match:
        """Return operators for B pairs; `look` and `target_look` are (B, C) contexts."""
        white = white_point(source)
        source, target = source.with_groups(), target.with_groups()
        start = channel_gains(tissue_mean(source, white), tissue_mean(target, white))
        means, wanted = (side.means() - white[:, None] for side in (source, target))
        axes, wanted_axes = source.axes(), target.axes()
        features = mean_features(means, source.covariances())
        changes = feature_changes(means[..., None, :], axes)
        shares = [side.fractions for side in (source, target)]
        common = shares[0] * shares[1] / (shares[0] + shares[1] + 1e-4)
        known = [means, wanted, axes.flatten(-2), wanted_axes.flatten(-2)]
        known += [torch.log(share + 1e-4)[..., None] / 4 for share in shares]
        known += [features @ start - wanted, (means - wanted).abs().sum(-1, True)]
        tokens = torch.cat(known, dim=-1)
        first = common * self._bounded(self.first_weight(tokens)[..., 0]).exp()
        pull = self.log_pull.exp().expand(len(means), 2)
        draft = _solve(features, changes, wanted, wanted_axes, first, start, pull)

        drafted, drafted_axes = features @ draft, changes @ draft[:, None]
        tokens = torch.cat([*known[:6], drafted - wanted, known[7]], dim=-1)
        hidden = self.read(tokens) + self.names
        hidden = torch.cat([hidden, self.look(torch.cat([look, target_look], -1))[:, None]], 1)
        for layer in self.layers:
            hidden = layer(hidden)
        log_weight, trust, axes_trust, shift = self.write(hidden[:, :-1]).split([1, 1, 3, 3], -1)
        log_error, softer = self.judge(hidden[:, -1]).split([1, 2], -1)
        trust, axes_trust = trust.sigmoid(), axes_trust.sigmoid()[..., None]
        mended = drafted + trust * (wanted - drafted) + MAX_SHIFT_OD * torch.tanh(shift)
        mended_axes = drafted_axes + axes_trust * (wanted_axes - drafted_axes)
        # A class the target lacks can speak too, by what was drafted for it and its shift.
        evidence = common + (1 - trust[..., 0]) * shares[0] / 2
        weights = evidence * self._bounded(log_weight[..., 0]).exp()
        pull = pull * self._bounded(softer).exp()
        relative = _solve(features, changes, mended, mended_axes, weights, start, pull)
        gains = torch.diagonal(start[:, LINEAR], dim1=1, dim2=2)
        return Match(relative, white, gains, weights, log_error[:, 0])

    @staticmethod
    def _bounded(value: Tensor) -> Tensor:
        return MAX_LOG_WEIGHT * torch.tanh(value / MAX_LOG_WEIGHT)


def _solve(
    features: Tensor,
    changes: Tensor,
    wanted: Tensor,
    wanted_axes: Tensor,
    weights: Tensor,
    start: Tensor,
    pull: Tensor,
) -> Tensor:
    """Fit class means, and what lies a deviation off along each axis, to what is wanted of them.

    `features`, `wanted` (B, K, 9 or 3) of the means; `changes`, `wanted_axes` (B, K, 3, 9 or 3).
    """
    points, values = (
        torch.cat([mean[:, :, None], mean[:, :, None] + axes, mean[:, :, None] - axes], dim=2)
        for mean, axes in ((features, changes), (wanted, wanted_axes))
    )
    shares = weights.new_tensor([1.0, *[AXIS_WEIGHT] * 6])
    all_weights = weights[..., None] * shares * torch.exp(-values.mean(-1).clamp(min=0.0))
    pulls = torch.cat([pull[:, :1].expand(-1, 3), pull[:, 1:].expand(-1, 6)], dim=1)
    flat = [part.flatten(1, 2) for part in (points, values, all_weights)]
    return ridge(*flat, start, pulls)


def _attention_layer(width: int, heads: int) -> nn.Module:
    return nn.TransformerEncoderLayer(
        width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
    )
