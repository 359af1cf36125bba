"""Small image-to-image networks: a generator with one or two decoders, a patch discriminator.

Both work on (N, 3, H, W) float32 RGB in [-1, 1] of any H, W that are multiples of `MULTIPLE_PX`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Two halvings of the resolution.
MULTIPLE_PX = 4
SLOPE = 0.2


@dataclass(frozen=True)
class TranslatorParams:
    """`channels` at full resolution, doubled at each halving; `blocks` at a quarter of it."""

    channels: int
    blocks: int
    decoders: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Translator(nn.Module):
    """Encoder, residual blocks and decoders with skips.

    Johnson et al. 2016's transformer as in CycleGAN, with instance normalisation in the encoder,
    which takes most of a tile's own stain away; much smaller, and with U-Net skips, so that
    structure need not pass through the bottleneck.
    """

    def __init__(self, params: TranslatorParams) -> None:
        super().__init__()
        self.params = params
        width = params.channels
        self.stem = _normed(nn.Conv2d(3, width, 3, padding=1))
        self.down_half = _normed(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1))
        self.down_quarter = _normed(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1))
        self.blocks = nn.Sequential(*(Residual(4 * width) for _ in range(params.blocks)))
        self.decoders = nn.ModuleList(Decoder(width) for _ in range(params.decoders))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(N, 3, H, W) → one (N, 3, H, W) in [-1, 1] per decoder."""
        full = F.leaky_relu(self.stem(x), SLOPE)
        half = F.leaky_relu(self.down_half(full), SLOPE)
        deep = self.blocks(F.leaky_relu(self.down_quarter(half), SLOPE))
        return [decoder(deep, half, full).tanh() for decoder in self.decoders]


class Decoder(nn.Module):
    """From a quarter of the resolution back to an image, with skips."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_half = nn.Conv2d(4 * width, 2 * width, 3, padding=1)
        self.to_full = nn.Conv2d(2 * width, width, 3, padding=1)
        self.out = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, deep: Tensor, half: Tensor, full: Tensor) -> Tensor:
        """Return the image, (N, 3, H, W), before it is bounded."""
        hidden = F.leaky_relu(doubled(self.to_half(deep)) + half, SLOPE)
        hidden = F.leaky_relu(doubled(self.to_full(hidden)) + full, SLOPE)
        return self.out(hidden)


class Residual(nn.Module):
    """Two convolutions with instance normalisation around a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _normed(nn.Conv2d(channels, channels, 3, padding=1))
        self.second = _normed(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, H, W)."""
        return x + self.second(F.leaky_relu(self.first(x), SLOPE))


class PatchDiscriminator(nn.Module):
    """Judge overlapping patches of 34 px (Isola et al. 2017, one layer less).

    Without normalisation: what it has to judge is colour, which that would take away.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, channels, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(2 * channels, 4 * channels, 4, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(4 * channels, 1, 4, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, 1, h, w): near 1 real, near 0 made up."""
        return self.layers(x)


def judged_frozen(judge: nn.Module, images: Tensor) -> Tensor:
    """Return what `judge` says, with gradients to the images but not to its weights."""
    weights = {name: weight.detach() for name, weight in judge.named_parameters()}
    return torch.func.functional_call(judge, weights, (images,))


def doubled(x: Tensor) -> Tensor:
    """Return (N, C, H, W) at twice the resolution, each value four times."""
    # Not F.interpolate: its backward pass has no deterministic form everywhere.
    rows, columns = x.shape[-2:]
    wide = x[..., :, None, :, None].expand(*x.shape[:-1], 2, columns, 2)
    return wide.reshape(*x.shape[:-2], 2 * rows, 2 * columns)


def _normed(layer: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(layer, nn.InstanceNorm2d(layer.out_channels, affine=True))
