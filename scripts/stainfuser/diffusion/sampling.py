"""One network call, and the loop over steps, as plain functions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
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


@contextlib.contextmanager
def remembered_context(unet: Any, controlnet: Any) -> Iterator[None]:
    """Compute what does not change between the steps of one image once, for the time of the block.

    That is the projection of the target's tokens, their keys and values in every cross-attention,
    and the embedding of the ControlNet's image. Results are the same to the bit.
    """
    places = [(controlnet, "controlnet_cond_embedding")]
    for network in (unet, controlnet):
        places.append((network, "encoder_hid_proj"))
        for module in network.modules():
            if isinstance(module, Attention) and module.is_cross_attention:
                places += [(module, "to_k"), (module, "to_v")]
    kept = [(owner, name, getattr(owner, name)) for owner, name in places]
    try:
        for owner, name, module in kept:
            setattr(owner, name, _Remembered(module))
        yield
    finally:
        for owner, name, module in kept:
            setattr(owner, name, module)


class _Remembered(nn.Module):
    """Answers every call with the answer to the first one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._module, self._answer = module, None

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module says of the first `x`."""
        if self._answer is None:
            self._answer = self._module(x)
        return self._answer
