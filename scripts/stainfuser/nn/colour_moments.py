"""The colours of a slide's stained pixels as additive moments, and colours relative to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Mass, mean (3) and products (6) of the optical density, weighted by how stained a pixel is.
TISSUE_MOMENTS = 10
# OD, sum of the channels, at which a pixel counts half as stained; slope.
STAINED_OD, STAINED_SLOPE = 0.45, 10.0
# Three channels and their three differences.
RELATIVE_COLOURS = 6
# Added to deviations, OD: noise is not stretched.
DEVIATION_FLOOR = 0.03
MAX_DEVIATIONS = 4.0


def tissue_moments(od: Tensor) -> Tensor:
    """Return (N, TISSUE_MOMENTS): means over the pixels of (N, 3, H, W) optical densities."""
    weight = torch.sigmoid((od.sum(1, keepdim=True) - STAINED_OD) * STAINED_SLOPE)
    products = od[:, (0, 0, 0, 1, 1, 2)] * od[:, (0, 1, 2, 1, 2, 2)]
    return (torch.cat([torch.ones_like(weight), od, products], dim=1) * weight).mean((2, 3))


@dataclass(frozen=True)
class ColourMoments:
    """`moments` (..., TISSUE_MOMENTS): `tissue_moments`, averaged over the tiles of a slide."""

    moments: Tensor

    @property
    def mean(self) -> Tensor:
        """(..., 3): mean OD of the stained pixels."""
        return self.moments[..., 1:4] / (self.moments[..., :1] + 1e-3)

    @property
    def covariance(self) -> Tensor:
        """(..., 6): upper triangle of their covariance, row by row."""
        rows, columns = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)
        second = self.moments[..., 4:] / (self.moments[..., :1] + 1e-3)
        return second - self.mean[..., rows] * self.mean[..., columns]

    def deviation(self) -> Tensor:
        """(..., 6): deviation of the channels r, g, b and of r - g, g - b, r - b."""
        rr, rg, rb, gg, gb, bb = self.covariance.unbind(-1)
        variances = [rr, gg, bb, rr + gg - 2 * rg, gg + bb - 2 * gb, rr + bb - 2 * rb]
        return torch.stack(variances, dim=-1).clamp(min=1e-5).sqrt()

    def standardized(self, od: Tensor) -> Tensor:
        """Return (N, RELATIVE_COLOURS, H, W): colours in deviations from the slide's mean.

        Most of what a change of stain or scanner does to colours is gone from these.
        """
        offset = od - self.mean[..., None, None]
        red, green, blue = offset.unbind(1)
        values = torch.stack([red, green, blue, red - green, green - blue, red - blue], dim=1)
        scaled = values / (self.deviation() + DEVIATION_FLOOR)[..., None, None]
        return scaled.clamp(-MAX_DEVIATIONS, MAX_DEVIATIONS) / 2
