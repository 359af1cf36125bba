"""Statistics of an image's stain in optical density, as torch tensors, and what follows from them.

Stain is the lowest frequency of an image: a handful of numbers per image says most of it. They
are handed to the diffusion model beside the target's tokens, and can move the source's colours
near the target's before the model starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Optical density (sum of the channels) between which a pixel turns from glass to tissue.
GLASS_OD, TISSUE_OD = 0.15, 0.6
QUANTILES = (0.02, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.98)
# Equal shares of the tissue whose mean colours are told apart, along one property of the pixels.
SHARES = 4
# Mean, deviation, correlations; quantiles; tissue fraction; mean colours along two properties.
FEATURES = 9 + 3 * len(QUANTILES) + 1 + 2 * 3 * SHARES
# Pixels drawn from every image, whatever its size.
SAMPLE_PX = 2048
# Steps of the additive sequence that spreads points evenly over a square (Roberts 2018, R2).
PLASTIC_STEPS = (0.7548776662466927, 0.5698402909980532)
# Variance added to every direction before covariances are matched, OD^2.
ROUNDING = 1e-3
# Differences between source and target are small numbers; this brings them to about 1.
DIFFERENCE_GAIN = 5.0


@dataclass(frozen=True)
class StainStatistics:
    """Per image: `sample` (N, P, 3) OD of its pixels; `mean` (N, 3), `covariance` of its tissue."""

    sample: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of_sample(cls, sample: Tensor) -> StainStatistics:
        """Measure (N, P, 3) optical densities."""
        weight = tissue_weight(sample, dim=-1)
        # One pseudo-pixel of no colour keeps an image without tissue finite.
        total = weight.sum(dim=1) + 1.0
        mean = (sample * weight).sum(dim=1) / total
        centred = (sample - mean[:, None]) * weight.sqrt()
        return cls(sample, mean, centred.transpose(1, 2) @ centred / total[..., None])

    def select(self, index: Tensor | list[int]) -> StainStatistics:
        """Return the statistics of the chosen images."""
        return StainStatistics(self.sample[index], self.mean[index], self.covariance[index])

    def pooled(self) -> StainStatistics:
        """Return the statistics of all images together, N = 1 (images count alike)."""
        # The k-th pixel comes from image k mod N: samples are spread evenly from any k on.
        number = torch.arange(self.sample.shape[1], device=self.sample.device)
        return StainStatistics.of_sample(self.sample[number % len(self.sample), number][None])

    def to(self, device: torch.device | str) -> StainStatistics:
        """Return the statistics on a device."""
        return StainStatistics(*(t.to(device) for t in (self.sample, self.mean, self.covariance)))

    def features(self) -> Tensor:
        """Return (N, `FEATURES`): how the colours are distributed, and what goes with what."""
        od, weight = self.sample, tissue_weight(self.sample, dim=-1)
        deviation = torch.diagonal(self.covariance, dim1=1, dim2=2).clamp(min=1e-6).sqrt()
        scale = deviation[:, [0, 0, 1]] * deviation[:, [1, 2, 2]] + 1e-4
        correlation = self.covariance[:, [0, 0, 1], [1, 2, 2]] / scale
        rows = [round(q * (od.shape[1] - 1)) for q in QUANTILES]
        quantiles = od.sort(dim=1).values[:, rows].flatten(1)
        density = od.sum(dim=-1)
        # Haematoxylin takes a larger share of the red light than eosin does.
        redness = od[..., 0] / (density + 0.1)
        profiles = [_mean_colours(od, weight[..., 0], key) for key in (redness, density)]
        known = [self.mean, deviation, correlation, quantiles, weight.mean(dim=1), *profiles]
        return torch.cat(known, dim=1)


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
    rows, columns = _even_places(rgb.shape[-2], rgb.shape[-1])
    sample = rgb[..., rows.to(rgb.device), columns.to(rgb.device)]
    return StainStatistics.of_sample(optical_density(sample).transpose(1, 2))


def match_statistics(rgb: Tensor, own: StainStatistics, other: StainStatistics) -> Tensor:
    """Give (N, 3, H, W) RGB in [0, 1] the mean and covariance of `other` in OD (`match_od`)."""
    od = optical_density(rgb)
    return transmitted(
        match_od(od.flatten(2).transpose(1, 2), own, other).transpose(1, 2).view_as(od)
    )


def match_od(od: Tensor, own: StainStatistics, other: StainStatistics) -> Tensor:
    """Give (N, P, 3) optical densities the mean and covariance of `other`.

    The linear map is the Monge-Kantorovich one, which moves colours least (Pitie and Kokaram
    2007). Background (OD near 0) keeps its colour: the change fades out with the tissue weight.
    """
    matrix = monge_kantorovich(own.covariance, other.covariance)
    moved = (od - own.mean[:, None]) @ matrix + other.mean[:, None]
    return od + tissue_weight(od, dim=-1) * (moved.clamp(min=0.0) - od)


def monge_kantorovich(own: Tensor, other: Tensor) -> Tensor:
    """Return the symmetric (N, 3, 3) T with T own T = other, for (N, 3, 3) covariances.

    Both are made a little rounder first, so that a direction without variance is not stretched.
    """
    floor = ROUNDING * torch.eye(3, device=own.device)
    root = _matrix_power(own + floor, 0.5)
    inverse = _matrix_power(own + floor, -0.5)
    middle = _matrix_power(root @ (other + floor) @ root, 0.5)
    return inverse @ middle @ inverse


def condition_vector(own: StainStatistics, other: StainStatistics, start: str) -> Tensor:
    """Return (N, 2 * `FEATURES`): the start's statistics, and how far the target's are from them.

    With start "statistics" the mean and covariance agree already; what is left to tell is which
    colours go together in the one and in the other.
    """
    if start == "statistics":
        own = StainStatistics.of_sample(match_od(own.sample, own, other))
    mine, theirs = own.features(), other.features()
    return torch.cat([mine, DIFFERENCE_GAIN * (theirs - mine)], dim=1)


def _mean_colours(od: Tensor, weight: Tensor, key: Tensor) -> Tensor:
    """Return (N, 3 * `SHARES`): mean OD of equal shares of the tissue, ordered by `key` (N, P)."""
    order = key.argsort(dim=1, stable=True)
    od = od.gather(1, order[..., None].expand_as(od))
    weight = weight.gather(1, order)
    share = weight.cumsum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=1e-6)
    place = (share * SHARES).long().clamp(max=SHARES - 1)
    means = []
    for number in range(SHARES):
        mine = (weight * (place == number))[..., None]
        means.append((od * mine).sum(dim=1) / (mine.sum(dim=1) + 1.0))
    return torch.cat(means, dim=1)


def _matrix_power(matrix: Tensor, power: float) -> Tensor:
    """Raise symmetric positive (N, 3, 3) matrices to a power."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=1e-7).pow(power)[:, None] @ vectors.transpose(1, 2)


def _even_places(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return rows and columns of `SAMPLE_PX` px spread evenly over an image of any size."""
    number = torch.arange(1, SAMPLE_PX + 1, dtype=torch.float64)
    rows, columns = (
        ((number * step) % 1.0 * side).long()
        for step, side in zip(PLASTIC_STEPS, (height, width), strict=True)
    )
    return rows, columns
