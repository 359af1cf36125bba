"""Put a pipeline together from a preset's name, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.errors import ConfigError, InputError
from stainfuser.nn.autoencoder import PatchAutoencoder
from stainfuser.nn.backbones import build_controlnet, build_unet, compact_parameters
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.nn.stain_statistics import FEATURES


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
    operator_head: OperatorHead | None = None,
) -> StainFuserPipeline:
    """Return preset `compact`, randomly initialised from `seed` alone.

    The output convolution of the UNet starts at zero: an untrained bridge returns its start.
    """
    scheduler = objective_named(objective).make_scheduler()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = PatchAutoencoder(latent_patch_px, latent_channels, decoder_channels)
        parameters = compact_parameters(
            latent_channels, 3 * latent_patch_px**2, channels, 2 * FEATURES
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
        operator_head=operator_head,
    )


def sd21_pipeline(
    *,
    seed: int,
    base_model: str | None,
    objective: str,
    start: str,
    mpp: float | None,
    patch_size: int,
    context_tokens: int | None,
    operator_head: OperatorHead | None = None,
) -> StainFuserPipeline:
    """Return preset `sd21`: Stable Diffusion's parts, a ControlNet copied from its UNet.

    `base_model` is a folder in diffusers' layout, or a hub id. What Stable Diffusion lacks (the
    two projections of the tokens, the ControlNet's zero convolutions and conditioning embedding)
    is initialised from `seed`.
    """
    scheduler = objective_named(objective).make_scheduler()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = _base_part(AutoencoderKL, base_model, "vae")
        unet = _base_part(
            UNet2DConditionModel,
            base_model,
            "unet",
            encoder_hid_dim=vae.config.latent_channels,
            encoder_hid_dim_type="text_proj",
        )
        # diffusers leaves what a checkpoint lacks as it finds the memory.
        unet.encoder_hid_proj.reset_parameters()
        controlnet = ControlNetModel.from_unet(unet)
    for network in (vae, unet, controlnet):
        # The folder it came from is nobody's business but the user's.
        network.register_to_config(_name_or_path="")
    return StainFuserPipeline(
        vae=vae,
        unet=unet,
        controlnet=controlnet,
        scheduler=scheduler,
        preset="sd21",
        objective=objective,
        mpp=mpp,
        patch_size=patch_size,
        context_tokens=context_tokens,
        start=start,
        target_range="zero_one",
        control_range="zero_one",
        operator_head=operator_head,
    )


def freeze_all_but(pipeline: StainFuserPipeline, unet_parts: Sequence[str]) -> None:
    """Train the whole ControlNet and the named parts of the UNet; the rest keeps its weights."""
    children = dict(pipeline.unet.named_children())
    unknown = [part for part in unet_parts if part not in children]
    if unknown:
        raise ConfigError(
            "train.trained_unet_parts",
            f"the UNet has no part {unknown[0]!r}",
            f"choose from {', '.join(children)}",
        )
    pipeline.unet.requires_grad_(False)
    for part in unet_parts:
        children[part].requires_grad_(True)
    pipeline.controlnet.requires_grad_(True)


def _base_part(component: Any, base_model: str | None, name: str, **changes: Any) -> Any:
    """Load one network of Stable Diffusion; projections it does not have are left random."""
    if base_model is None:
        raise ConfigError(
            "train.base_model",
            "preset sd21 starts from Stable Diffusion 2.1-base, and none is given",
            "give its folder or hub id, or use preset compact",
        )
    try:
        return component.from_pretrained(
            base_model, subfolder=name, low_cpu_mem_usage=False, use_safetensors=True, **changes
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        kind = "folder" if Path(base_model).is_dir() else "hub id"
        raise InputError(
            base_model,
            f"the {kind} has no usable {name} ({reason})",
            "give Stable Diffusion 2.1-base in diffusers' layout with safetensors weights",
        ) from None
