"""The moving average of weights."""

from __future__ import annotations

import torch
from torch import nn

from stainfuser.diffusion.ema import ExponentialAverage


def module(value: float) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, value)
    return layer


def test_early_updates_forget_the_start():
    layer = module(0.0)
    average = ExponentialAverage(layer, decay=0.999)
    nn.init.constant_(layer.weight, 1.0)
    average.update(layer, 0)
    assert torch.allclose(average.shadow["weight"], torch.full((2, 2), 0.9))


def test_late_updates_use_the_decay():
    layer = module(0.0)
    average = ExponentialAverage(layer, decay=0.9)
    nn.init.constant_(layer.weight, 1.0)
    average.update(layer, 100_000)
    assert torch.allclose(average.shadow["weight"], torch.full((2, 2), 0.1))


def test_frozen_weights_are_not_averaged():
    layer = module(0.0)
    layer.bias.requires_grad_(False)
    assert set(ExponentialAverage(layer, 0.9).shadow) == {"weight"}


def test_a_lent_average_is_taken_back():
    layer = module(0.0)
    average = ExponentialAverage(layer, 0.9)
    nn.init.constant_(layer.weight, 1.0)
    with average.applied(layer):
        assert not layer.weight.any()
    assert torch.equal(layer.weight, torch.ones(2, 2))
    average.copy_to(layer)
    assert not layer.weight.any()
