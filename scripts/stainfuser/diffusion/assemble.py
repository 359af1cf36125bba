"""Put a pipeline together from a preset's name, with random weights."""

from __future__ import annotations

import torch

from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.nn.autoencoder import PatchAutoencoder
from stainfuser.nn.backbones import build_controlnet, build_unet, compact_parameters
from stainfuser.nn.stain_statistics import STATISTICS


def compact_pipeline(
    *,
    seed: int,
    objective: str,
    start: str,
    mpp: float | None,
    patch_size: int,
    context_tokens: int | None,
    latent_patch_px: int,
    latent_channels: int,
    channels: tuple[int, ...],
    decoder_channels: int,
) -> StainFuserPipeline:
    """Return preset `compact`, randomly initialised from `seed` alone.

    The output convolution of the UNet starts at zero: an untrained bridge returns its start.
    """
    scheduler = objective_named(objective).make_scheduler()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = PatchAutoencoder(latent_patch_px, latent_channels, decoder_channels)
        parameters = compact_parameters(
            latent_channels, 3 * latent_patch_px**2, channels, 2 * STATISTICS
        )
        unet, controlnet = build_unet(parameters), build_controlnet(parameters)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return StainFuserPipeline(
        vae=vae,
        unet=unet,
        controlnet=controlnet,
        scheduler=scheduler,
        preset="compact",
        objective=objective,
        mpp=mpp,
        patch_size=patch_size,
        context_tokens=context_tokens,
        start=start,
        control_unshuffle=latent_patch_px,
    )
