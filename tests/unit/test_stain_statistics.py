"""Statistics of stain in optical density."""

from __future__ import annotations

import numpy as np
import torch

from stainfuser.nn.stain_statistics import (
    FEATURES,
    ROUNDING,
    match_statistics,
    monge_kantorovich,
    optical_density,
    stain_statistics,
    transmitted,
)
from stainfuser.stain.optical_density import rgb_to_od


def tissue(seed: int, mean: tuple[float, float, float]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    od = torch.tensor(mean)[:, None, None] + 0.1 * torch.randn(3, 64, 64, generator=generator)
    return transmitted(od.clamp(min=0.3))[None]


def test_optical_density_agrees_with_the_numpy_one():
    grey = np.arange(256, dtype=np.uint8)
    mine = optical_density(torch.from_numpy(grey).float() / 255.0)
    assert np.allclose(mine.numpy(), rgb_to_od(grey), atol=1e-6)
    assert torch.allclose(transmitted(mine) * 255, torch.arange(256).float(), atol=1e-3)


def test_matching_gives_the_other_mean_and_covariance():
    source, target = tissue(0, (0.6, 0.9, 0.5)), tissue(1, (0.9, 1.1, 0.8))
    own, other = stain_statistics(source), stain_statistics(target)
    result = stain_statistics(match_statistics(source, own, other))
    assert torch.allclose(result.mean, other.mean, atol=0.02)
    assert torch.allclose(result.covariance, other.covariance, atol=0.003)


def test_background_keeps_its_colour():
    source, target = tissue(0, (0.6, 0.9, 0.5)), tissue(1, (0.9, 1.1, 0.8))
    white = torch.full((1, 3, 64, 64), 0.96)
    half = torch.cat([source[..., :32], white[..., :32]], dim=-1)
    result = match_statistics(half, stain_statistics(half), stain_statistics(target))
    assert torch.allclose(result[..., 32:], half[..., 32:], atol=0.01)


def test_blank_and_tiny_images_have_finite_statistics():
    for image in (torch.ones(1, 3, 8, 8), torch.zeros(1, 3, 8, 8), torch.rand(1, 3, 1, 1)):
        statistics = stain_statistics(image)
        assert statistics.features().shape == (1, FEATURES)
        assert torch.isfinite(statistics.features()).all()
        moved = match_statistics(image, statistics, stain_statistics(tissue(1, (0.9, 1.1, 0.8))))
        assert torch.isfinite(moved).all()


def test_pooling_equal_images_changes_nothing():
    one = stain_statistics(tissue(0, (0.6, 0.9, 0.5)))
    pooled = one.select([0, 0, 0]).pooled()
    assert torch.allclose(pooled.mean, one.mean)
    assert torch.allclose(pooled.covariance, one.covariance, atol=1e-6)
    assert torch.allclose(pooled.features(), one.features(), atol=1e-6)


def test_pooling_adds_the_variance_between_images():
    two = torch.cat([tissue(0, (0.5, 0.9, 0.5)), tissue(1, (0.9, 0.9, 0.5))])
    pooled = stain_statistics(two).pooled()
    assert float(pooled.covariance[0, 0, 0]) > 0.04
    assert float(pooled.covariance[0, 1, 1]) < 0.02


def test_the_linear_map_is_symmetric_and_exact():
    torch.manual_seed(0)
    own, other = (m @ m.transpose(1, 2) + torch.eye(3) for m in torch.randn(2, 4, 3, 3))
    linear = monge_kantorovich(own, other)
    assert torch.allclose(linear, linear.transpose(1, 2), atol=1e-5)
    rounding = ROUNDING * torch.eye(3)
    moved = linear @ (own + rounding) @ linear
    assert torch.allclose(moved, other + rounding, rtol=1e-3, atol=1e-3)
    assert torch.allclose(monge_kantorovich(own, own), torch.eye(3).expand(4, 3, 3), atol=1e-4)
