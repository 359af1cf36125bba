"""UNet and ControlNet whose answer at a place depends on its surroundings only.

Stock networks normalise their features over the whole tile (GroupNorm), so that the colour of a
pixel depends on what else happens to lie in the tile, and on the tile's size. Here features are
normalised at every position over their channels; together with attention to the target's tokens
only, a tile's statistics enter through nothing but the statistics vector, which can be a slide's.
The last normalisation is left out: it would take from the network the size of its answer, which
for a bridge is how far source and target are apart.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from diffusers import ControlNetModel, ModelMixin, UNet2DConditionModel
from torch import Tensor, nn

# diffusers loads a class by its base `ModelMixin`, which it looks for in the class's own module.
__all__ = ["LocalControlNet", "LocalUNet", "ModelMixin", "PositionNorm"]


class PositionNorm(nn.Module):
    """Divide by the root mean square over the channels at each position, then scale and shift."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) → (N, C, ...)."""
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + self.eps)
        return x * scale * self.weight.view(shape) + self.bias.view(shape)


class LocalUNet(UNet2DConditionModel):
    """`UNet2DConditionModel`, same configuration, normalised per position."""

    @functools.wraps(UNet2DConditionModel.__init__)
    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _normalize_per_position(self)
        self.conv_norm_out = nn.Identity()


class LocalControlNet(ControlNetModel):
    """`ControlNetModel`, same configuration, normalised per position."""

    @functools.wraps(ControlNetModel.__init__)
    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        _normalize_per_position(self)


def _normalize_per_position(module: nn.Module) -> None:
    """Replace every GroupNorm below `module`."""
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, PositionNorm(child.num_channels, child.eps))
        else:
            _normalize_per_position(child)
