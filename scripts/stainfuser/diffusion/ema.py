"""Exponential moving average of weights (Polyak averaging), explicit and stateless in time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """Shadow of a module's trainable weights: shadow <- d shadow + (1 - d) weight.

    The decay d of update n is min(decay, (1 + n) / (10 + n)), so that the random initial weights
    are forgotten at once.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {
            name: weight.detach().clone()
            for name, weight in module.named_parameters()
            if weight.requires_grad
        }

    @torch.no_grad()
    def update(self, module: nn.Module, update: int) -> None:
        """Move the shadow towards the module's weights; `update` counts from 0."""
        decay = min(self.decay, (1 + update) / (10 + update))
        weights = dict(module.named_parameters())
        for name, shadow in self.shadow.items():
            shadow.lerp_(weights[name].detach(), 1.0 - decay)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the module's weights with the shadow."""
        weights = dict(module.named_parameters())
        for name, shadow in self.shadow.items():
            weights[name].copy_(shadow)

    @contextlib.contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Lend the shadow to the module for the time of the block."""
        weights = dict(module.named_parameters())
        kept = {name: weights[name].detach().clone() for name in self.shadow}
        self.copy_to(module)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, weight in kept.items():
                    weights[name].copy_(weight)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Take over a saved shadow."""
        for name, tensor in self.shadow.items():
            tensor.copy_(shadow[name])
