"""Fréchet distances between sets of tiles, named for the features they are measured on.

A number called FID is only comparable with other numbers called so if it is measured on the
published Inception weights. Without them this is `FD-stain`, on features of this repository: no
network, hence nothing that was trained to please, and few of them, because a distance between
covariances needs many more tiles than features.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stainfuser.files import sha256_file

# SHA-256 of the published file begins with the digits in its name.
PUBLISHED_SHA256 = "6726825d"
SCALES = 4
BATCH = 16


class FrechetFeatures(NamedTuple):
    """Features of images, and the name of the distance that is measured on them."""

    name: str
    network: nn.Module


class StainFeatures(nn.Module):
    """(N, 3, H, W) uint8 RGB → (N, 21) float32: how an image is stained and how it is grained.

    Of the optical densities: mean and deviation of each channel, covariances between channels, and
    the mean absolute detail of each channel at four scales, an octave apart.
    """

    num_features = 9 + 3 * SCALES

    def forward(self, images: Tensor) -> Tensor:
        """See the class; sides of at least 16 px."""
        od = -torch.log((images.float() + 1.0) / 256.0)
        flat = od.flatten(2)
        centred = flat - flat.mean(dim=2, keepdim=True)
        covariance = centred @ centred.transpose(1, 2) / flat.shape[2]
        deviation = covariance.diagonal(dim1=1, dim2=2).clamp_min(0).sqrt()
        pairs = torch.stack([covariance[:, 0, 1], covariance[:, 0, 2], covariance[:, 1, 2]], dim=1)
        found = [flat.mean(dim=2), deviation, pairs]
        for _ in range(SCALES):
            coarse = functional.avg_pool2d(od, 2)
            rows, columns = (2 * side for side in coarse.shape[2:])
            detail = od[:, :, :rows, :columns] - coarse.repeat_interleave(2, 2).repeat_interleave(
                2, 3
            )
            found.append(detail.abs().mean(dim=(2, 3)))
            od = coarse
        return torch.cat(found, dim=1)


def frechet_features(inception_weights: str | Path | None = None) -> FrechetFeatures:
    """Return `FID` on the published weights, `FD-inception` on others, `FD-stain` without any.

    Raises
    ------
    InputError
        The file of weights cannot be used.
    """
    if inception_weights is None:
        return FrechetFeatures("FD-stain", StainFeatures())
    from stainfuser.nn.inception import load_inception

    network = load_inception(inception_weights)
    is_published = sha256_file(inception_weights).startswith(PUBLISHED_SHA256)
    return FrechetFeatures("FID" if is_published else "FD-inception", network)


def frechet_distance(
    first: NDArray[np.uint8], second: NDArray[np.uint8], features: FrechetFeatures
) -> float:
    """Return the Fréchet distance between two sets of tiles, >= 0 (torchmetrics).

    `first` (N, S, S, 3) and `second` (M, T, T, 3) uint8 RGB. It is biased upwards where tiles are
    few (fewer than a few times the features): compare only numbers from as many tiles. NaN for
    fewer than two tiles in either set.
    """
    if min(len(first), len(second)) < 2:
        return float("nan")
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=features.network)
    for images, is_real in ((first, True), (second, False)):
        for start in range(0, len(images), BATCH):
            batch = np.ascontiguousarray(images[start : start + BATCH].transpose(0, 3, 1, 2))
            metric.update(torch.from_numpy(batch), real=is_real)
    return max(0.0, float(metric.compute()))
