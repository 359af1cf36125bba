"""Recolourings of whole batches, one of its own for each image: smooth maps in optical density."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stainfuser.nn.od_torch import MAX_OD, od_to_rgb, quadratic_features, rgb_to_od


@dataclass(frozen=True)
class RecolouringBatch:
    """The parameters of `stain.recolouring.Recolouring`, one row per image.

    `swap` (B, 3, 3), `gamma` (B, 3), `curve` (B, 10, 3), `bends` (B, n, 7): centre, displacement
    and width of Gaussian bumps; all float32, optical density.
    """

    swap: Tensor
    gamma: Tensor
    curve: Tensor
    bends: Tensor

    def __call__(self, rgb: Tensor) -> Tensor:
        """Recolour (B, ..., 3) float RGB in [0, 255] and round to whole grey levels."""
        od = rgb_to_od(rgb).flatten(1, -2)
        return od_to_rgb(self.apply_to_od(od)).round().reshape(rgb.shape)

    def apply_to_od(self, od: Tensor) -> Tensor:
        """Recolour (B, n, 3) optical densities."""
        out = (od @ self.swap).clamp(1e-6, MAX_OD) ** self.gamma[:, None]
        out = (quadratic_features(out) @ self.curve).clamp(0.0, MAX_OD)
        for bend in self.bends.unbind(1):
            centre, displacement, width = bend[:, None, :3], bend[:, None, 3:6], bend[:, None, 6:]
            square = (out - centre).square().sum(-1, keepdim=True)
            out = out + displacement * torch.exp(-0.5 * square / width.square())
        return out.clamp(0.0, MAX_OD)
