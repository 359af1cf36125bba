"""Statistics of an image's stain in optical density, as torch tensors, and what follows from them.

Stain is the lowest frequency of an image: a handful of numbers per image says most of it. They
are handed to the diffusion model beside the target's tokens, and can move the source's statistics
onto the target's before the model starts (Reinhard et al. 2001, here in optical density).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Optical density (sum of the channels) between which a pixel turns from glass to tissue.
GLASS_OD, TISSUE_OD = 0.15, 0.6
QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98)
# mean, deviation, covariance off the diagonal, quantiles, tissue fraction.
STATISTICS = 3 + 3 + 3 + 3 * len(QUANTILES) + 1
# Statistics are taken on at most about this many px per image.
SAMPLE_PX = 4096
# No channel is stretched or squeezed by more than this when statistics are matched.
MAX_GAIN = 3.0


@dataclass(frozen=True)
class StainStatistics:
    """Per image: `mean` (N, 3) and `deviation` (N, 3) of the tissue's OD, `features` (N, D)."""

    mean: Tensor
    deviation: Tensor
    features: Tensor

    def select(self, index: Tensor | list[int]) -> StainStatistics:
        """Return the statistics of the chosen images."""
        return StainStatistics(self.mean[index], self.deviation[index], self.features[index])

    def pooled(self) -> StainStatistics:
        """Return the statistics of all images together, N = 1 (images count alike)."""
        mean, features = self.mean.mean(0, keepdim=True), self.features.mean(0, keepdim=True)
        # Variance within images plus variance between their means.
        square = self.deviation.square() + (self.mean - mean).square()
        deviation = square.mean(0, keepdim=True).sqrt()
        features = torch.cat([mean, deviation, features[:, 6:]], dim=1)
        return StainStatistics(mean, deviation, features)

    def to(self, device: torch.device | str) -> StainStatistics:
        """Return the statistics on a device."""
        return StainStatistics(*(t.to(device) for t in (self.mean, self.deviation, self.features)))


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
    deviation = torch.diagonal(covariance, dim1=1, dim2=2).clamp(min=1e-6).sqrt()
    off_diagonal = covariance[:, [0, 0, 1], [1, 2, 2]]
    correlation = off_diagonal / (deviation[:, [0, 0, 1]] * deviation[:, [1, 2, 2]] + 1e-4)
    ordered = od.sort(dim=1).values
    rows = [round(q * (od.shape[1] - 1)) for q in QUANTILES]
    quantiles = ordered[:, rows].flatten(1)
    features = [mean, deviation, correlation, quantiles, weight.mean(dim=1)]
    return StainStatistics(mean, deviation, torch.cat(features, dim=1))


def match_statistics(rgb: Tensor, own: StainStatistics, other: StainStatistics) -> Tensor:
    """Give (N, 3, H, W) RGB in [0, 1] the mean and deviation of `other`, per channel of OD.

    Background (OD near 0) keeps its colour: the change fades out with the tissue weight.
    """
    od = optical_density(rgb)
    gain = (other.deviation + 0.02) / (own.deviation + 0.02)
    gain = gain.clamp(1.0 / MAX_GAIN, MAX_GAIN)
    moved = (od - own.mean[..., None, None]) * gain[..., None, None]
    moved = (moved + other.mean[..., None, None]).clamp(min=0.0)
    weight = tissue_weight(od, dim=1)
    return transmitted(od + weight * (moved - od))


def _sampled(rgb: Tensor) -> Tensor:
    """Take px at equal distances (no averaging: it would narrow the distribution)."""
    step = max(int((rgb.shape[-1] * rgb.shape[-2] / SAMPLE_PX) ** 0.5), 1)
    return rgb[..., ::step, ::step]
