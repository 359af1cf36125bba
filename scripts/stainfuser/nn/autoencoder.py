"""A light autoencoder on pixel patches: linear analysis, linear synthesis plus a learned detail.

Latents of a KL autoencoder are a non-linear code in which a mere change of colour moves every
channel. Here the encoder is one linear map per patch (its principal components), so a colour
change stays nearly a linear change of the latents, squared error in the latents is squared error
in the pixels, and the encoder costs next to nothing. The decoder adds what truncation lost with a
small convolutional body. Neither has normalisation over space: a patch's code depends on that
patch only, and a pixel on its neighbourhood only, whatever the size of the tile.
"""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F


class ResidualConv(nn.Module):
    """x + conv(silu(conv(x))), 3 x 3, equal channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) → (N, C, h, w)."""
        return x + self.conv2(F.silu(self.conv1(x)))


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Autoencoder with the calls of diffusers' `AutoencoderKL` and a deterministic posterior.

    Parameters
    ----------
    patch_px
        Side of a patch, px: the factor between pixels and latents.
    latent_channels
        Principal components kept of the 3 * patch_px^2 numbers of a patch.
    hidden_channels, layers
        Width and number of residual blocks of the decoder's body.
    scaling_factor
        What latents are multiplied by before the diffusion model sees them.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        patch_px: int = 4,
        latent_channels: int = 16,
        hidden_channels: int = 64,
        layers: int = 2,
        scaling_factor: float = 1.0,
    ) -> None:
        super().__init__()
        pixels = 3 * patch_px**2
        self.analysis = nn.Conv2d(pixels, latent_channels, 1)
        self.synthesis = nn.Conv2d(latent_channels, pixels, 1)
        self.detail_in = nn.Conv2d(latent_channels, hidden_channels, 3, padding=1)
        self.detail_body = nn.Sequential(*[ResidualConv(hidden_channels) for _ in range(layers)])
        self.detail_out = nn.Conv2d(hidden_channels, pixels, 3, padding=1)
        nn.init.zeros_(self.detail_out.weight)
        nn.init.zeros_(self.detail_out.bias)

    def encode(self, x: Tensor, return_dict: bool = True) -> AutoencoderKLOutput:
        """(N, 3, H, W) in [-1, 1], H and W multiples of `patch_px` → posterior (N, C, h, w)."""
        mean = self.analysis(F.pixel_unshuffle(x, self.config.patch_px))
        parameters = torch.cat([mean, torch.zeros_like(mean)], dim=1)
        posterior = DiagonalGaussianDistribution(parameters, deterministic=True)
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(
        self, z: Tensor, return_dict: bool = True, generator: object = None
    ) -> DecoderOutput:
        """(N, C, h, w) → (N, 3, H, W), nominal range [-1, 1]."""
        detail = self.detail_out(F.silu(self.detail_body(self.detail_in(z))))
        sample = F.pixel_shuffle(self.synthesis(z) + detail, self.config.patch_px)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(self, x: Tensor) -> Tensor:
        """Encode and decode: (N, 3, H, W) → (N, 3, H, W)."""
        return self.decode(self.encode(x).latent_dist.mode()).sample

    @torch.no_grad()
    def set_principal_components(self, images: Tensor) -> float:
        """Start from the principal components of the patches of (N, 3, H, W) images in [-1, 1].

        Returns the fraction of the patches' variance that the kept components carry. The signs of
        the components are fixed (largest weight positive), so that the result is reproducible.
        """
        patches = F.pixel_unshuffle(images, self.config.patch_px).double()
        rows = patches.permute(0, 2, 3, 1).flatten(0, 2)
        mean = rows.mean(dim=0)
        covariance = (rows - mean).T @ (rows - mean) / max(len(rows) - 1, 1)
        variances, vectors = torch.linalg.eigh(covariance)
        basis = vectors.flip(1)[:, : self.config.latent_channels].T
        largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
        basis = basis * largest.sign()
        self.analysis.weight.copy_(basis[..., None, None])
        self.analysis.bias.copy_(-basis @ mean)
        self.synthesis.weight.copy_(basis.T[..., None, None])
        self.synthesis.bias.copy_(mean)
        kept = variances.flip(0)[: self.config.latent_channels].sum()
        return float(kept / variances.sum().clamp(min=1e-12))
