"""Statistics of an image's stain in optical density, as torch tensors, and what follows from them.

Stain is the lowest frequency of an image: a handful of numbers per image says most of it. They
are handed to the diffusion model beside the target's tokens, and can move the source's statistics
onto the target's before the model starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Optical density (sum of the channels) between which a pixel turns from glass to tissue.
GLASS_OD, TISSUE_OD = 0.15, 0.6
QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98)
# Mean, deviation and correlations; with them, quantiles and the tissue fraction.
MOMENTS = 9
STATISTICS = MOMENTS + 3 * len(QUANTILES) + 1
# Statistics are taken on at most about this many px per image.
SAMPLE_PX = 4096
# Variance added to every direction before covariances are matched, OD^2.
ROUNDING = 1e-3


@dataclass(frozen=True)
class StainStatistics:
    """Per image: `mean` (N, 3) and `covariance` (N, 3, 3) of the tissue's OD, `features` (N, D)."""

    mean: Tensor
    covariance: Tensor
    features: Tensor

    def select(self, index: Tensor | list[int]) -> StainStatistics:
        """Return the statistics of the chosen images."""
        return StainStatistics(self.mean[index], self.covariance[index], self.features[index])

    def pooled(self) -> StainStatistics:
        """Return the statistics of all images together, N = 1 (images count alike)."""
        mean = self.mean.mean(0, keepdim=True)
        between = self.mean - mean
        # Covariance within images plus covariance of their means.
        every = self.covariance + between[:, :, None] * between[:, None]
        covariance = every.mean(0, keepdim=True)
        rest = self.features[:, MOMENTS:].mean(0, keepdim=True)
        features = torch.cat([_moment_features(mean, covariance), rest], dim=1)
        return StainStatistics(mean, covariance, features)

    def to(self, device: torch.device | str) -> StainStatistics:
        """Return the statistics on a device."""
        return StainStatistics(*(t.to(device) for t in (self.mean, self.covariance, self.features)))


def optical_density(rgb: Tensor) -> Tensor:
    """[0, 1] RGB → OD in [0, 5.55], as `stain.optical_density.rgb_to_od` does for uint8."""
    return -torch.log((rgb.clamp(0.0, 1.0) * 255.0 + 1.0) / 256.0)


def transmitted(od: Tensor) -> Tensor:
    """Invert `optical_density`: OD → RGB in [0, 1]."""
    return ((256.0 * torch.exp(-od) - 1.0) / 255.0).clamp(0.0, 1.0)


def tissue_weight(od: Tensor, dim: int) -> Tensor:
    """Return a soft tissue mask in [0, 1]; `dim` (the colour) is kept with length 1."""
    share = (od.sum(dim=dim, keepdim=True) - GLASS_OD) / (TISSUE_OD - GLASS_OD)
    share = share.clamp(0.0, 1.0)
    return share.square() * (3.0 - 2.0 * share)


def stain_statistics(rgb: Tensor) -> StainStatistics:
    """Measure (N, 3, H, W) RGB in [0, 1]; every image by itself."""
    od = optical_density(_sampled(rgb)).flatten(2).transpose(1, 2)
    weight = tissue_weight(od, dim=-1)
    # One pseudo-pixel keeps an image without tissue finite.
    total = weight.sum(dim=1) + 1.0
    mean = (od * weight).sum(dim=1) / total
    centred = (od - mean[:, None]) * weight.sqrt()
    covariance = centred.transpose(1, 2) @ centred / total[..., None]
    ordered = od.sort(dim=1).values
    rows = [round(q * (od.shape[1] - 1)) for q in QUANTILES]
    rest = [ordered[:, rows].flatten(1), weight.mean(dim=1)]
    features = torch.cat([_moment_features(mean, covariance), *rest], dim=1)
    return StainStatistics(mean, covariance, features)


def match_statistics(rgb: Tensor, own: StainStatistics, other: StainStatistics) -> Tensor:
    """Give (N, 3, H, W) RGB in [0, 1] the mean and covariance of `other` in OD.

    The linear map is the Monge-Kantorovich one, which moves colours least (Pitie and Kokaram
    2007). Background (OD near 0) keeps its colour: the change fades out with the tissue weight.
    """
    od = optical_density(rgb)
    matrix = monge_kantorovich(own.covariance, other.covariance)
    centred = od.flatten(2) - own.mean[..., None]
    moved = (matrix @ centred + other.mean[..., None]).view_as(od).clamp(min=0.0)
    return transmitted(od + tissue_weight(od, dim=1) * (moved - od))


def monge_kantorovich(own: Tensor, other: Tensor) -> Tensor:
    """Return the symmetric (N, 3, 3) T with T own T = other, for (N, 3, 3) covariances.

    Both are made a little rounder first, so that a direction without variance is not stretched.
    """
    floor = ROUNDING * torch.eye(3, device=own.device)
    root = _matrix_power(own + floor, 0.5)
    inverse = _matrix_power(own + floor, -0.5)
    middle = _matrix_power(root @ (other + floor) @ root, 0.5)
    return inverse @ middle @ inverse


def _matrix_power(matrix: Tensor, power: float) -> Tensor:
    """Raise symmetric positive (N, 3, 3) matrices to a power."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=1e-7).pow(power)[:, None] @ vectors.transpose(1, 2)


def _moment_features(mean: Tensor, covariance: Tensor) -> Tensor:
    """Return (N, 9): mean, deviation and correlations."""
    deviation = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=1e-6).sqrt()
    correlation = covariance[:, [0, 0, 1], [1, 2, 2]]
    correlation = correlation / (deviation[:, [0, 0, 1]] * deviation[:, [1, 2, 2]] + 1e-4)
    return torch.cat([mean, deviation, correlation], dim=1)


def _sampled(rgb: Tensor) -> Tensor:
    """Take px at equal distances (no averaging: it would narrow the distribution)."""
    step = max(int((rgb.shape[-1] * rgb.shape[-2] / SAMPLE_PX) ** 0.5), 1)
    return rgb[..., ::step, ::step]
