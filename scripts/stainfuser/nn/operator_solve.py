"""From matched classes to a colour operator: a ridge regression in closed form, differentiable.

The operator is a quadratic map in optical density relative to the source's own white (the glass),
without a constant: white stays exactly as it was whatever the target looks like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stainfuser.nn.class_statistics import ClassStatistics
from stainfuser.nn.od_torch import LUMINANCE, MAX_OD, QUADRATIC_FEATURES, quadratic_features

# Glass as scanners show it, and the share of the pixels that this expectation weighs: it decides
# where an image shows no glass.
USUAL_WHITE_OD = 0.04
USUAL_WHITE_FRACTION = 0.002
# Pale tissue among the glass makes it darker and uneven: this many deviations are taken back.
PALE_TISSUE_SPREADS = 0.7
# The channel-wise starting point stretches no channel more than this.
MAX_GAIN = 3.0
RELATIVE_FEATURES = QUADRATIC_FEATURES - 1
LINEAR = slice(0, 3)


def relative_features(od: Tensor) -> Tensor:
    """Return (..., 9): `quadratic_features` without the constant."""
    return quadratic_features(od)[..., 1:]


def mean_features(means: Tensor, covariances: Tensor) -> Tensor:
    """Return (..., 9): the mean of `relative_features` over a class, exactly.

    `means` (..., 3) relative to white and `covariances` (..., 3, 3) of the class.
    """
    rows, columns = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
    products = means[..., rows] * means[..., columns] + covariances[..., rows, columns]
    return torch.cat([means, products], dim=-1)


def feature_changes(means: Tensor, spreads: Tensor) -> Tensor:
    """Return (..., 9): how `relative_features` change from `means` along `spreads`, (..., 3)."""
    rows, columns = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
    changes = means[..., rows] * spreads[..., columns] + spreads[..., rows] * means[..., columns]
    return torch.cat([spreads, changes], dim=-1)


def white_point(statistics: ClassStatistics) -> Tensor:
    """Return (..., 3): the OD of the glass; `USUAL_WHITE_OD` where the tiles show none."""
    background = statistics.groups[..., 0, :]
    expected = USUAL_WHITE_FRACTION * statistics.groups[..., 0].sum(-1, keepdim=True) + 1e-6
    total = background[..., :1] + expected
    mean = (background[..., 1:4] + expected * USUAL_WHITE_OD) / total
    # Of the products only the squares: rr, gg, bb of the upper triangle.
    squares = (background[..., (4, 7, 9)] + expected * USUAL_WHITE_OD**2) / total
    spread = (squares - mean.square()).clamp(min=1e-8).sqrt()
    return (mean - PALE_TISSUE_SPREADS * spread).clamp(min=0.0)


def tissue_mean(statistics: ClassStatistics, white: Tensor) -> Tensor:
    """Return (..., 3): the mean OD of the tissue relative to `white`, never below 0.02."""
    tissue = statistics.groups[..., 1:, :].sum(-2)
    expected = 1e-4 * statistics.groups[..., 0].sum(-1, keepdim=True) + 1e-6
    mean = (tissue[..., 1:4] + expected * (white + 0.2)) / (tissue[..., :1] + expected)
    return (mean - white).clamp(min=0.02)


def channel_gains(source_mean: Tensor, target_mean: Tensor) -> Tensor:
    """Return (B, 9, 3): the map that scales each channel's mean OD to the target's."""
    gain = (target_mean / source_mean).clamp(1 / MAX_GAIN, MAX_GAIN)
    start = gain.new_zeros(*gain.shape[:-1], RELATIVE_FEATURES, 3)
    start[..., LINEAR, :] = torch.diag_embed(gain)
    return start


def ridge(features: Tensor, values: Tensor, weights: Tensor, start: Tensor, pull: Tensor) -> Tensor:
    """Return (B, 9, 3): the weighted least-squares map, pulled towards `start`.

    Parameters
    ----------
    features, values
        (B, n, 9) `relative_features` of the source, and (B, n, 3) OD wanted of them.
    weights
        (B, n), not negative.
    start
        (B, 9, 3): where the map goes in directions no point speaks of.
    pull
        (B, 9), positive: how strongly each feature is held at `start`.
    """
    weighted = (features * weights[..., None]).transpose(-1, -2)
    normal = weighted @ features + torch.diag_embed(pull)
    return start + torch.linalg.solve(normal, weighted @ (values - features @ start))


def absolute_coefficients(relative: Tensor, white: Tensor) -> Tensor:
    """Return (..., 10, 3) on `quadratic_features` of the OD itself.

    ``white + relative_features(od - white) @ relative`` is a quadratic in `od`; its coefficients
    follow by expansion.
    """
    red, green, blue = white.unbind(-1)
    zero, one = torch.zeros_like(red), torch.ones_like(red)
    # Each row: one relative feature as a combination of the ten absolute ones.
    rows = [
        [-red, one, zero, zero, *[zero] * 6],
        [-green, zero, one, zero, *[zero] * 6],
        [-blue, zero, zero, one, *[zero] * 6],
        [red * red, -2 * red, zero, zero, one, *[zero] * 5],
        [green * green, zero, -2 * green, zero, zero, one, *[zero] * 4],
        [blue * blue, zero, zero, -2 * blue, *[zero] * 2, one, *[zero] * 3],
        [red * green, -green, -red, zero, *[zero] * 3, one, zero, zero],
        [red * blue, -blue, zero, -red, *[zero] * 4, one, zero],
        [green * blue, zero, -blue, -green, *[zero] * 5, one],
    ]
    expansion = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
    coefficients = expansion.transpose(-1, -2) @ relative
    constant = torch.zeros_like(coefficients)
    constant[..., 0, :] = white
    return coefficients + constant


def identity_coefficients(like: Tensor) -> Tensor:
    """Return the (..., 10, 3) coefficients that change nothing, shaped as `like`."""
    identity = torch.zeros_like(like)
    identity[..., 1:4, :] = torch.eye(3, dtype=like.dtype, device=like.device)
    return identity


def predicted_structure(coefficients: Tensor, statistics: ClassStatistics) -> Tensor:
    """Return (...): the expected correlation of luminance gradients before and after the operator.

    From the class sums alone: at the mean of each class, and a deviation to either side, the
    operator is replaced by its derivative, so the gradients of both images are linear in the
    source's OD gradients, whose second moments are at hand.
    """
    means, spreads = statistics.means(), statistics.spreads()
    products = statistics.gradient_products()
    points = torch.cat([means, means + spreads, means - spreads], dim=-2).clamp(0.0, MAX_OD)
    products = torch.cat([0.5 * products, 0.25 * products, 0.25 * products], dim=-3)
    after = (quadratic_features(points) @ coefficients).clamp(0.0, MAX_OD)
    weights = means.new_tensor(LUMINANCE)
    slope_before = weights * torch.exp(-points)
    slope_after = weights * torch.exp(-after)
    slope_after = (_derivative(points, coefficients) @ slope_after[..., None]).squeeze(-1)

    def inner(first: Tensor, second: Tensor) -> Tensor:
        return (first[..., None, :] @ products @ second[..., :, None]).sum((-1, -2, -3))

    norm = inner(slope_before, slope_before) * inner(slope_after, slope_after)
    return inner(slope_before, slope_after) / norm.clamp(min=1e-20).sqrt()


def _derivative(od: Tensor, coefficients: Tensor) -> Tensor:
    """Return (..., K, 3, 3): d output channel (last) / d input channel at (..., K, 3) OD."""
    r, g, b = od.unbind(-1)
    zero, one = torch.zeros_like(r), torch.ones_like(r)
    # Derivatives of the ten features by r, g and b.
    by_channel = torch.stack(
        [
            torch.stack([zero, one, zero, zero, 2 * r, zero, zero, g, b, zero], dim=-1),
            torch.stack([zero, zero, one, zero, zero, 2 * g, zero, r, zero, b], dim=-1),
            torch.stack([zero, zero, zero, one, zero, zero, 2 * b, zero, r, g], dim=-1),
        ],
        dim=-2,
    )
    return by_channel @ coefficients[..., None, :, :]
