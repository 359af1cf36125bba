"""Optical density, its quadratic features and CIE Lab as differentiable torch functions.

The formulas are those of `stain.optical_density` and of scikit-image, for float tensors whose
last dimension is the colour; RGB is in [0, 255], as images are stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_OD = 5.5
# sRGB (IEC 61966-2-1) to CIE XYZ, divided by the white point D65 of the 2 degree observer.
XYZ_OF_SRGB = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
WHITE_D65 = (0.95047, 1.0, 1.08883)
# Gamma-coded luminance (Rec. 709), as `stain.metrics.gradient_correlation` weighs channels.
LUMINANCE = (0.2126, 0.7152, 0.0722)
QUADRATIC_FEATURES = 10
# Densest channel over the background between which a pixel turns from glass to tissue.
GLASS_OD, TISSUE_OD = 0.03, 0.12


def rgb_to_od(rgb: Tensor) -> Tensor:
    """Return -ln((rgb + 1) / 256): (..., 3) in [0, 255] → (..., 3) in [0, 5.55]."""
    return -torch.log((rgb + 1.0) / 256.0)


def od_to_rgb(od: Tensor) -> Tensor:
    """Invert `rgb_to_od` without rounding: (..., 3) → (..., 3) in [0, 255]."""
    return (256.0 * torch.exp(-od) - 1.0).clamp(0.0, 255.0)


def quadratic_features(od: Tensor) -> Tensor:
    """Return (..., 10): 1, r, g, b, rr, gg, bb, rg, rb, gb of (..., 3) optical densities."""
    r, g, b = od.unbind(-1)
    return torch.stack(
        [torch.ones_like(r), r, g, b, r * r, g * g, b * b, r * g, r * b, g * b], dim=-1
    )


def apply_operator(coefficients: Tensor, rgb: Tensor) -> Tensor:
    """Apply (B, 10, 3) operators to (B, ..., 3) RGB in [0, 255]; not rounded."""
    od = rgb_to_od(rgb).flatten(1, -2)
    mapped = (quadratic_features(od) @ coefficients).clamp(0.0, MAX_OD)
    return od_to_rgb(mapped).reshape(rgb.shape)


def apply_relative_operator(relative: Tensor, white: Tensor, rgb: Tensor) -> Tensor:
    """Apply (B, 9, 3) operators around (B, 3) white ODs to (B, ..., 3) RGB; not rounded.

    The change fades in between the background's colour and the palest tissue, as it does in
    `stain.operators.ColourOperator`.
    """
    offset = rgb_to_od(rgb).flatten(1, -2) - white[:, None]
    mapped = quadratic_features(offset)[..., 1:] @ relative
    t = ((offset.amax(-1, keepdim=True) - GLASS_OD) / (TISSUE_OD - GLASS_OD)).clamp(0.0, 1.0)
    faded = offset + t * t * (3.0 - 2.0 * t) * (mapped - offset)
    return od_to_rgb((faded + white[:, None]).clamp(0.0, MAX_OD)).reshape(rgb.shape)


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """Return CIE L*, a*, b* (D65, 2 degree observer) of (..., 3) sRGB in [0, 255]."""
    coded = rgb / 255.0
    # The clamp keeps the gradient of the branch not taken finite.
    linear = torch.where(
        coded > 0.04045, ((coded.clamp(min=0.04) + 0.055) / 1.055) ** 2.4, coded / 12.92
    )
    matrix = rgb.new_tensor(XYZ_OF_SRGB) / rgb.new_tensor(WHITE_D65)[:, None]
    xyz = linear @ matrix.T
    root = torch.where(xyz > 0.008856, xyz.clamp(min=0.008) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = root.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def cie94_square(lab: Tensor, reference_lab: Tensor) -> Tensor:
    """Return the squared CIE94 difference (graphic arts) of (..., 3) Lab to a reference.

    Near to CIEDE2000 for the reds and violets of H&E and, unlike it, smooth everywhere, so that
    it can be trained on: no hue angle enters.
    """
    lightness = lab[..., 0] - reference_lab[..., 0]
    shift = lab[..., 1:] - reference_lab[..., 1:]
    chroma = (reference_lab[..., 1:].square().sum(-1) + 1e-4).sqrt()
    own_chroma = (lab[..., 1:].square().sum(-1) + 1e-4).sqrt()
    chroma_shift = own_chroma - chroma
    hue_square = (shift.square().sum(-1) - chroma_shift.square()).clamp(min=0.0)
    chroma_term = (chroma_shift / (1 + 0.045 * chroma)).square()
    return lightness.square() + chroma_term + hue_square / (1 + 0.015 * chroma).square()


def luminance_gradients(rgb: Tensor) -> tuple[Tensor, Tensor]:
    """Return the differences along y and x of the luminance of (..., H, W, 3) RGB."""
    luminance = rgb @ rgb.new_tensor(LUMINANCE)
    return luminance.diff(dim=-2), luminance.diff(dim=-1)
