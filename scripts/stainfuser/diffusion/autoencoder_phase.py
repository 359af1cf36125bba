"""First phase of preset `compact`: the autoencoder learns these images' patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from stainfuser.diffusion.augmentation import draw_stain_maps
from stainfuser.diffusion.pairs import PairImages, as_tensor, draw_rows, spread_rows
from stainfuser.logs import LOGGER
from stainfuser.nn.autoencoder import PatchAutoencoder
from stainfuser.seeds import generator

# Pairs whose images give the principal components.
COMPONENT_PAIRS = 24


def prepare_autoencoder(
    vae: PatchAutoencoder, images: PairImages, rows: np.ndarray, crop_px: int, seed: int
) -> float:
    """Set the linear part to the patches' principal components; only the decoder learns on.

    Returns the fraction of the patches' variance the latents keep.
    """
    chosen = spread_rows(rows, COMPONENT_PAIRS)
    batch = _crops(images, chosen, crop_px, seed, step=-1, strength=1.0)
    kept = vae.set_principal_components(batch * 2.0 - 1.0)
    vae.analysis.requires_grad_(False)
    LOGGER.info("autoencoder: latents keep %.2f %% of the patches' variance", 100.0 * kept)
    return kept


def autoencoder_loss(
    images: PairImages, rows: np.ndarray, seed: int, batch_size: int, crop_px: int, strength: float
) -> Callable[[nn.Module, int, int], Tensor]:
    """Return the loss of a step: mean absolute error of the reconstruction, values in [-1, 1]."""

    def loss_of(vae: nn.Module, step: int, micro: int) -> Tensor:
        chosen = draw_rows(rows, batch_size, seed, step, stream=micro)
        batch = _crops(images, chosen, crop_px, seed, step, strength, micro) * 2.0 - 1.0
        batch = batch.to(next(vae.parameters()).device)
        return (vae(batch) - batch).abs().mean()

    return loss_of


def _crops(
    images: PairImages,
    rows: np.ndarray,
    crop_px: int,
    seed: int,
    step: int,
    strength: float,
    micro: int = 0,
) -> Tensor:
    """Return (N, 3, crop, crop) in [0, 1]: sources and stylised images in turn, recoloured."""
    rng = generator(seed, "autoencoder", step, micro)
    crops = []
    for number in range(len(rows)):
        read = images.sources if number % 2 else images.stylized
        image = read(rows[number : number + 1])[0]
        top, left = (rng.integers(0, side - crop_px + 1) for side in image.shape[:2])
        crops.append(image[top : top + crop_px, left : left + crop_px])
    maps = draw_stain_maps(rng, len(crops), probability=0.5, strength=strength)
    return maps(as_tensor(crops))


def reconstruction_psnr(vae: PatchAutoencoder, batch: Tensor) -> float:
    """Return the PSNR of a round trip of (N, 3, H, W) in [0, 1], dB."""
    with torch.no_grad():
        result = (vae(batch * 2.0 - 1.0) / 2.0 + 0.5).clamp(0.0, 1.0)
    return float(-10.0 * torch.log10((result - batch).square().mean().clamp(min=1e-12)))
