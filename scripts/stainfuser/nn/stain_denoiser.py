"""A small pixel-space denoiser that knows which of two stains it is to make."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stainfuser.nn.od_torch import rgb_to_od
from stainfuser.nn.translators import doubled

# One fold of 2 px and one halving of the resolution.
MULTIPLE_PX = 4
FOLD_PX = 2
FREQUENCIES = 16
GROUPS = 8
# Mean optical density between which a pixel counts as glass and as tissue.
GLASS_OD, TISSUE_OD = 0.05, 0.15
LEAST_DEVIATION_OD = 0.03


@dataclass(frozen=True)
class DenoiserParams:
    """`channels` at half the resolution (a multiple of 8), twice that at a quarter; `blocks`."""

    channels: int
    blocks: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class StainDenoiser(nn.Module):
    """Predict the image under a noisy one.

    It sees the noisy image, the structure of the tissue (`structure_of`), the time and a label:
    0 the sources' stain, 1 the target's. The image itself is predicted, not the noise: where much
    noise is left, structure and stain give most of the answer, and no noise is carried over.
    """

    def __init__(self, params: DenoiserParams) -> None:
        super().__init__()
        self.params = params
        width = params.channels
        self.known = nn.Sequential(
            nn.Linear(2 * FREQUENCIES + 2, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width)
        )
        self.stem = nn.Conv2d(6 * FOLD_PX**2, width, 3, padding=1)
        self.fine = Block(width, 4 * width)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(Block(2 * width, 4 * width) for _ in range(params.blocks))
        self.up = nn.Conv2d(2 * width, width, 3, padding=1)
        self.last = Block(width, 4 * width)
        self.out = nn.Conv2d(width, 3 * FOLD_PX**2, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # A stain to begin with: each colour a linear function of the structure.
        self.tint = nn.Linear(2, 12, bias=False)

    def forward(self, noisy: Tensor, structure: Tensor, times: Tensor, labels: Tensor) -> Tensor:
        """(N, 3, H, W), (N, 3, H, W), (N,) in [0, 1], (N,) int64 → (N, 3, H, W)."""
        stain = F.one_hot(labels, 2).float()
        known = self.known(torch.cat([_embed(times), stain], dim=1))
        folded = F.pixel_unshuffle(torch.cat([noisy, structure], dim=1), FOLD_PX)
        fine = self.fine(self.stem(folded), known)
        deep = self.down(fine)
        for block in self.blocks:
            deep = block(deep, known)
        hidden = self.last(doubled(self.up(deep)) + fine, known)
        colour, slope = self.tint(stain).split([3, 9], dim=1)
        tinted = (slope.view(-1, 3, 3) @ structure.flatten(2)).view_as(structure)
        return F.pixel_shuffle(self.out(hidden), FOLD_PX) + tinted + colour[..., None, None]


class Block(nn.Module):
    """Residual block whose features are scaled and shifted by what is known."""

    def __init__(self, channels: int, known: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.film = nn.Linear(known, 2 * channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, known: Tensor) -> Tensor:
        """(N, C, H, W), (N, K) → (N, C, H, W)."""
        scale, shift = self.film(known)[..., None, None].chunk(2, dim=1)
        hidden = F.silu(self.norm(x) * (1 + scale) + shift)
        return x + self.second(F.silu(self.first(hidden)))


def structure_of(rgb: Tensor) -> Tensor:
    """Return what an image in [-1, 1] shows, largely without its stain: (N, 3, H, W) → the same.

    Optical densities, each channel with the mean 0 and the deviation 1 over the image's tissue:
    the strength and the tint of the stain as a whole are gone, what is darker than what is left.
    """
    od = rgb_to_od((rgb.clamp(-1, 1) + 1) * 127.5)
    mean_od = od.mean(dim=1, keepdim=True)
    tissue = ((mean_od - GLASS_OD) / (TISSUE_OD - GLASS_OD)).clamp(1e-3, 1.0)
    total = tissue.sum(dim=(2, 3), keepdim=True)
    mean = (tissue * od).sum(dim=(2, 3), keepdim=True) / total
    variance = (tissue * (od - mean).square()).sum(dim=(2, 3), keepdim=True) / total
    return ((od - mean) / (variance + LEAST_DEVIATION_OD**2).sqrt()).clamp(-4, 4)


def noised(image: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return the image at `times` (N,) between itself (0) and noise (1)."""
    alpha, sigma = _levels(times)
    return alpha * image + sigma * noise


def step_to(noisy: Tensor, clean: Tensor, times: Tensor, earlier: Tensor) -> Tensor:
    """Move a noisy image, `clean` in truth, to `earlier` times without new noise (DDIM)."""
    alpha, sigma = _levels(times)
    return noised(clean, (noisy - alpha * clean) / sigma, earlier)


def _levels(times: Tensor) -> tuple[Tensor, Tensor]:
    """Return alpha and sigma, (N, 1, 1, 1): a quarter circle; at time 1 no image is left."""
    angle = 0.5 * math.pi * times[:, None, None, None]
    return angle.cos(), angle.sin()


def _embed(times: Tensor) -> Tensor:
    """Return (N, 2 FREQUENCIES) sines and cosines of (N,) times."""
    rates = torch.exp(torch.linspace(0.0, math.log(100.0), FREQUENCIES, device=times.device))
    angles = times[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)
