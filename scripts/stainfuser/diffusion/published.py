"""The published StainFuser checkpoint layout: one file, the three networks under their own names.

``encoder.*`` is the AutoencoderKL, ``conditioner.*`` the ControlNet and ``noise_predictor.*`` the
UNet; ControlNet and UNet each hold an ``encoder_projector``, which stock diffusers calls
``encoder_hid_proj``. All other names are those of diffusers.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, PNDMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stainfuser.diffusion.model_folder import align, check_finite
from stainfuser.errors import InputError
from stainfuser.files import atomic_path

PARTS = {"vae": "encoder.", "controlnet": "conditioner.", "unet": "noise_predictor."}
PROJECTOR = ("encoder_projector.", "encoder_hid_proj.")
# Names of the top level under which training scripts like to wrap a state dict.
WRAPPERS = ("state_dict", "model")
# Resolution and side of the tiles the published model normalises.
PUBLISHED_MPP = 0.5
PUBLISHED_PATCH_PX = 512
REMEDY = "give the published StainFuser checkpoint, and the configuration it was trained with"

# SD 2.1-base (stabilityai/stable-diffusion-2-1-base), the parts that differ from the defaults.
SD21_BASE: dict[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 64,
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
    },
    "vae": {
        "sample_size": 768,
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 2,
    },
    "scheduler": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "leading",
    },
}


def empty_networks(
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[AutoencoderKL, UNet2DConditionModel, ControlNetModel]:
    """Return the published networks, of SD 2.1-base or of `config`, that hold no numbers yet."""
    config = SD21_BASE if config is None else config
    with torch.device("meta"):
        vae = AutoencoderKL(**config["vae"])
        tokens = {
            "encoder_hid_dim": vae.config.latent_channels,
            "encoder_hid_dim_type": "text_proj",
        }
        unet = UNet2DConditionModel(**{**config["unet"], **tokens})
        return vae, unet, ControlNetModel.from_unet(unet, load_weights_from_unet=False)


class PublishedLayout:
    """What a pipeline needs to read and write the published layout."""

    @classmethod
    def from_single_file(
        cls,
        path: str | Path,
        config: Mapping[str, Any] | str | Path | None = None,
        torch_dtype: torch.dtype = torch.float32,
    ) -> Any:
        """Load the published StainFuser checkpoint (see `load_published`).

        `config` is None for SD 2.1-base, or holds the diffusers configurations of "unet", "vae"
        and "scheduler". Values are fed in the published ranges.
        """
        pipeline = cls(
            **load_published(path, config),
            preset="sd21",
            objective="epsilon",
            mpp=PUBLISHED_MPP,
            patch_size=PUBLISHED_PATCH_PX,
            target_range="zero_one",
            control_range="zero_one",
        )
        for name in ("vae", "unet", "controlnet"):
            module = getattr(pipeline, name)
            check_finite(module, path)
            align(module)
        return pipeline if torch_dtype == torch.float32 else pipeline.to(torch_dtype)

    def save_single_file(self, path: str | Path) -> None:
        """Write the networks in the published layout, as one safetensors file."""
        if self.config.preset != "sd21":
            raise InputError(
                path, f"preset {self.config.preset} has no published layout", "use save_pretrained"
            )
        save_published(path, vae=self.vae, unet=self.unet, controlnet=self.controlnet)


def load_published(
    path: str | Path, config: Mapping[str, Any] | str | Path | None
) -> dict[str, Any]:
    """Return vae, unet, controlnet and scheduler built from a published checkpoint.

    Parameters
    ----------
    path
        ``.safetensors``, or ``.pth``/``.pt``/``.ckpt``, which is read without running code in it.
    config
        Mapping, or JSON file, with the diffusers configurations "unet", "vae" and "scheduler";
        None: SD 2.1-base.

    Raises
    ------
    InputError
        A file is missing or damaged, holds code, or does not fit the configuration.
    """
    path = Path(path)
    tensors = _read_tensors(path)
    configs = _read_config(config)
    parts = {name: _part(tensors, prefix, path) for name, prefix in PARTS.items()}
    with torch.device("meta"):
        vae = _build(AutoencoderKL, configs["vae"], path)
        unet = _build(UNet2DConditionModel, _projecting(configs, vae), path)
        channels = _embedding_channels(parts["controlnet"], path)
        controlnet = ControlNetModel.from_unet(
            unet, conditioning_embedding_out_channels=channels, load_weights_from_unet=False
        )
    networks = {"vae": vae, "unet": unet, "controlnet": controlnet}
    for name, network in networks.items():
        _fill(network, parts[name], path)
    return {**networks, "scheduler": PNDMScheduler.from_config(configs["scheduler"])}


def save_published(path: str | Path, *, vae: Any, unet: Any, controlnet: Any) -> None:
    """Write the networks as one safetensors file in the published layout, atomically."""
    networks = {"vae": vae, "unet": unet, "controlnet": controlnet}
    tensors = {}
    for name, prefix in PARTS.items():
        for key, tensor in networks[name].state_dict().items():
            renamed = key.replace(PROJECTOR[1], PROJECTOR[0], 1)
            tensors[prefix + renamed] = tensor.detach().cpu().contiguous()
    with atomic_path(path) as partial:
        save_file(tensors, partial)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(path, "there is no such checkpoint", REMEDY)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            path,
            "holds more than tensors, which would have to be run to be read",
            "convert it to safetensors where you trust it",
        ) from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(path, f"the checkpoint is damaged ({error})", "copy it again") from None
    return _unwrapped(content, path)


def _unwrapped(content: Any, path: Path) -> dict[str, Tensor]:
    """Return the mapping name → tensor, whatever it is wrapped in."""
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InputError(path, "is not a mapping of names to tensors", REMEDY)
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _read_config(config: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    if config is None:
        return SD21_BASE
    where: object = "config"
    if not isinstance(config, Mapping):
        where = config
        try:
            config = json.loads(Path(config).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(where, f"cannot be read as JSON ({error})", REMEDY) from None
    missing = [name for name in SD21_BASE if name not in config]
    if missing:
        raise InputError(where, f"lacks {', '.join(missing)}", "add what is missing")
    return config


def _part(tensors: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    """Return the tensors of one network under the names diffusers gives them."""
    part = {
        name.removeprefix(prefix).replace(*PROJECTOR, 1): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    if not part:
        raise InputError(path, f"has no tensor named {prefix}*", REMEDY)
    return part


def _projecting(configs: Mapping[str, Any], vae: AutoencoderKL) -> dict[str, Any]:
    """Return the UNet's configuration with tokens of the VAE's latents in place of text."""
    width = vae.config.latent_channels
    return {**configs["unet"], "encoder_hid_dim": width, "encoder_hid_dim_type": "text_proj"}


def _embedding_channels(part: Mapping[str, Tensor], path: Path) -> tuple[int, ...]:
    """Read the widths of the ControlNet's conditioning embedding off its tensors."""
    stem = "controlnet_cond_embedding."
    channels, block = [], 1
    try:
        channels.append(part[f"{stem}conv_in.weight"].shape[0])
    except KeyError:
        raise InputError(path, f"has no tensor named conditioner.{stem}conv_in", REMEDY) from None
    while f"{stem}blocks.{block}.weight" in part:
        channels.append(part[f"{stem}blocks.{block}.weight"].shape[0])
        block += 2
    return tuple(channels)


def _build(component: Any, config: Mapping[str, Any], path: Path) -> Any:
    try:
        return component.from_config(dict(config))
    except (TypeError, ValueError) as error:
        what = f"the configuration builds no {component.__name__} ({error})"
        raise InputError(path, what, REMEDY) from None


def _fill(network: nn.Module, part: Mapping[str, Tensor], path: Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in part.items()}
    names = expected.keys() | found.keys()
    wrong = sorted(name for name in names if expected.get(name) != found.get(name))
    if wrong:
        raise InputError(
            path,
            f"does not fit the configuration of its {type(network).__name__} ({len(wrong)} tensors "
            f"differ, the first is {wrong[0]})",
            REMEDY,
        )
    network.load_state_dict(part, assign=True)
