"""One network call, and the loop over steps, as plain functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.objectives import set_timesteps
from stainfuser.nn.stain_statistics import StainStatistics, condition_vector


def class_labels(
    unet: Any, source: StainStatistics, target: StainTarget, start: str
) -> Tensor | None:
    """Return what the statistics say (`condition_vector`), or None for a UNet without them."""
    if unet.config.class_embed_type is None:
        return None
    return condition_vector(source, target.statistics, start).to(unet.dtype)


def predict(
    unet: Any,
    controlnet: Any,
    sample: Tensor,
    timesteps: Tensor,
    control: Tensor,
    target: StainTarget,
    labels: Tensor | None,
) -> Tensor:
    """Call ControlNet and UNet once.

    Parameters
    ----------
    unet, controlnet
        diffusers modules with `encoder_hid_dim_type="text_proj"`.
    sample
        (N, C, h, w) latents at `timesteps`, (N,) or one for all.
    control
        (N, c, H, W) source pixels as the ControlNet takes them.
    target
        N targets.
    labels
        What `class_labels` returned.

    Returns
    -------
    Tensor
        (N, C, h, w) prediction.
    """
    tokens = target.tokens.to(sample.dtype)
    attention = None if target.token_bias is None else {"token_bias": target.token_bias}
    # ControlNetModel.forward does not apply its own projection of the tokens.
    control_tokens = _unwrapped(controlnet).encoder_hid_proj(tokens)
    down, middle = controlnet(
        sample,
        timesteps,
        encoder_hidden_states=control_tokens,
        controlnet_cond=control,
        class_labels=labels,
        cross_attention_kwargs=attention,
        return_dict=False,
    )
    return unet(
        sample,
        timesteps,
        encoder_hidden_states=tokens,
        class_labels=labels,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
        cross_attention_kwargs=attention,
        return_dict=False,
    )[0]


def denoise(
    call: Callable[[Tensor, Tensor], Tensor],
    scheduler: Any,
    start: Tensor,
    steps: int,
) -> Tensor:
    """Walk from `start` (N, C, h, w) to clean latents; `call(sample, timestep)` predicts."""
    set_timesteps(scheduler, steps, start.device)
    sample = start * getattr(scheduler, "init_noise_sigma", 1.0)
    for timestep in scheduler.timesteps:
        scaled = sample
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(sample, timestep)
        answer = call(scaled, timestep)
        sample = scheduler.step(answer, timestep, sample, return_dict=False)[0]
    return sample


def control_image(source: Tensor, unshuffle: int) -> Tensor:
    """Fold (N, 3, H, W) pixels into channels, as the ControlNet of the preset expects them."""
    return F.pixel_unshuffle(source, unshuffle) if unshuffle > 1 else source


def _unwrapped(module: Any) -> Any:
    """Return the module inside a DistributedDataParallel wrapper."""
    return getattr(module, "module", module)
