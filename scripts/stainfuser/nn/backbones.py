"""UNet and ControlNet of preset `compact` from one parameter record."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers import ControlNetModel, UNet2DConditionModel

from stainfuser.nn.local_networks import LocalControlNet, LocalUNet
from stainfuser.nn.token_attention import WeightedTokenProcessor

# One residual block. The middle block with attention would compare pixels over the whole tile.
MIDDLE = "UNetMidBlock2D"


@dataclass(frozen=True)
class BackboneParameters:
    """What UNet and ControlNet share; both attend to target tokens in place of text."""

    latent_channels: int
    block_out_channels: tuple[int, ...]
    down_block_types: tuple[str, ...]
    layers_per_block: int
    cross_attention_dim: int
    attention_head_dim: int | tuple[int, ...]
    norm_num_groups: int
    # True: no attention between pixels of the tile, so cost grows with its area only.
    only_cross_attention: bool
    use_linear_projection: bool
    # Numbers of the statistics vector added to the time embedding; 0: none.
    statistics: int
    # Channels of the image the ControlNet sees (3, times the square of an unshuffled patch).
    control_channels: int
    control_embedding_channels: tuple[int, ...]
    # How the time (and statistics) embedding enters a residual block: default or scale_shift.
    time_scale_shift: str


def compact_parameters(
    latent_channels: int, control_channels: int, channels: tuple[int, ...], statistics: int
) -> BackboneParameters:
    """Return the parameters of preset `compact`: attention on all but the finest level."""
    levels = ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (len(channels) - 1)
    return BackboneParameters(
        latent_channels=latent_channels,
        block_out_channels=channels,
        down_block_types=levels,
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
        only_cross_attention=True,
        use_linear_projection=True,
        statistics=statistics,
        control_channels=control_channels,
        control_embedding_channels=(channels[0],),
        time_scale_shift="scale_shift",
    )


def build_unet(parameters: BackboneParameters) -> UNet2DConditionModel:
    """Return a randomly initialised UNet (from torch's global generator)."""
    ups = tuple(name.replace("Down", "Up") for name in reversed(parameters.down_block_types))
    unet = LocalUNet(
        sample_size=None,
        out_channels=parameters.latent_channels,
        up_block_types=ups,
        mid_block_type=MIDDLE,
        **_shared(parameters),
    )
    unet.set_attn_processor(WeightedTokenProcessor())
    return unet


def build_controlnet(parameters: BackboneParameters) -> ControlNetModel:
    """Return a randomly initialised ControlNet whose zero convolutions are zero."""
    controlnet = LocalControlNet(
        conditioning_channels=parameters.control_channels,
        conditioning_embedding_out_channels=parameters.control_embedding_channels,
        mid_block_type=MIDDLE,
        **_shared(parameters),
    )
    controlnet.set_attn_processor(WeightedTokenProcessor())
    return controlnet


def _shared(parameters: BackboneParameters) -> dict[str, object]:
    """Return the keyword arguments UNet and ControlNet have in common."""
    keywords: dict[str, object] = dict(
        in_channels=parameters.latent_channels,
        block_out_channels=parameters.block_out_channels,
        down_block_types=parameters.down_block_types,
        layers_per_block=parameters.layers_per_block,
        cross_attention_dim=parameters.cross_attention_dim,
        attention_head_dim=parameters.attention_head_dim,
        norm_num_groups=parameters.norm_num_groups,
        only_cross_attention=parameters.only_cross_attention,
        use_linear_projection=parameters.use_linear_projection,
        encoder_hid_dim=parameters.latent_channels,
        encoder_hid_dim_type="text_proj",
        resnet_time_scale_shift=parameters.time_scale_shift,
    )
    if parameters.statistics:
        keywords["class_embed_type"] = "projection"
        keywords["projection_class_embeddings_input_dim"] = parameters.statistics
    return keywords
