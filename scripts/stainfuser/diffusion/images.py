"""What a user may pass as an image, checked and turned into tensors, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.errors import InputError

# Longest side of one image in one call, px; larger ones belong in the slide stages, tile by tile.
MAX_SIDE_PX = 8192


def image_list(images: Any, name: str) -> list[Tensor]:
    """Return each image as a (3, H, W) float32 tensor in [0, 1].

    Accepts (H, W, 3) or (N, H, W, 3) uint8 arrays, PIL images (transparency is composited on
    white), float tensors (3, H, W) or (N, 3, H, W) in [0, 1], and lists of these. Anything else
    raises `InputError`, with `name` saying which argument it was.
    """
    if isinstance(images, Sequence) and not isinstance(images, str):
        if not images:
            raise InputError(name, "the list is empty", "pass at least one image")
        return [tensor for image in images for tensor in image_list(image, name)]
    if isinstance(images, Tensor):
        return _from_tensor(images, name)
    if isinstance(images, np.ndarray):
        return _from_array(images, name)
    if hasattr(images, "getbands"):
        return _from_array(_pil_to_array(images), name)
    raise InputError(
        name,
        f"a {type(images).__name__} is not an image",
        "pass a uint8 RGB array, a PIL image, a float tensor in [0, 1] or a list of these",
    )


def to_uint8(image: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) float in [0, 1] → (H, W, 3) uint8, clamped and rounded."""
    scaled = (image.float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    return scaled.permute(1, 2, 0).contiguous().cpu().numpy()


def to_tensor(rgb: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) uint8 → (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float() / 255.0


def collected(results: list[Tensor], output_type: str) -> Any:
    """Return what `output_type` names; stacked if all have one size."""
    if output_type in ("np", "pil"):
        arrays = [to_uint8(result) for result in results]
        if output_type == "pil":
            from PIL import Image

            return [Image.fromarray(array) for array in arrays]
        return np.stack(arrays) if len({array.shape for array in arrays}) == 1 else arrays
    return torch.stack(results) if len({r.shape for r in results}) == 1 else results


def reflect_pad(image: Tensor, multiple: int) -> Tensor:
    """Pad (..., H, W) at the bottom and right to multiples by mirroring, whatever the size."""
    for dim in (-2, -1):
        length = image.shape[dim]
        padded = -(-length // multiple) * multiple
        if padded != length:
            image = image.index_select(dim, _mirror_index(length, padded).to(image.device))
    return image


def _mirror_index(length: int, padded: int) -> Tensor:
    """Return the rows of a mirror tiling (edge not repeated), e.g. 3 → 0 1 2 1 0 1 2 ..."""
    period = max(2 * (length - 1), 1)
    position = torch.arange(padded) % period
    return torch.minimum(position, period - position) if length > 1 else torch.zeros_like(position)


def _from_array(array: NDArray[Any], name: str) -> list[Tensor]:
    if array.dtype != np.uint8:
        raise InputError(
            name,
            f"the array is {array.dtype}, expected uint8",
            "convert it to 8-bit RGB, or pass a float tensor in [0, 1]",
        )
    if array.ndim not in (3, 4) or array.shape[-1] != 3:
        raise InputError(
            name,
            f"the array has shape {array.shape}, expected (H, W, 3) or (N, H, W, 3)",
            "convert grey images and drop alpha channels before the call",
        )
    batch = array[None] if array.ndim == 3 else array
    _check_size(batch.shape[0], batch.shape[1], batch.shape[2], name)
    tensor = torch.from_numpy(np.array(batch)).permute(0, 3, 1, 2).float() / 255.0
    return list(tensor)


def _from_tensor(tensor: Tensor, name: str) -> list[Tensor]:
    if not tensor.is_floating_point():
        raise InputError(
            name,
            f"the tensor is {tensor.dtype}, expected floating point",
            "divide by 255 to get values in [0, 1]",
        )
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3:
        raise InputError(
            name,
            f"the tensor has shape {tuple(tensor.shape)}, expected (3, H, W) or (N, 3, H, W)",
            "move the channels in front of height and width",
        )
    batch = tensor.detach()[None] if tensor.ndim == 3 else tensor.detach()
    _check_size(batch.shape[0], batch.shape[2], batch.shape[3], name)
    low, high = float(batch.min()), float(batch.max())
    # The comparison is written so that NaN fails it.
    if not (low >= -1e-3 and high <= 1.0 + 1e-3):
        raise InputError(
            name,
            f"values lie in [{low:g}, {high:g}], expected [0, 1]",
            "scale the tensor to [0, 1]",
        )
    return list(batch.float())


def _check_size(count: int, height: int, width: int, name: str) -> None:
    if min(count, height, width) == 0:
        raise InputError(name, "the image has no pixels", "pass an image of at least 1 x 1 px")
    if max(height, width) > MAX_SIDE_PX:
        raise InputError(
            name,
            f"the image has {width} x {height} px, more than {MAX_SIDE_PX} on a side",
            "cut it into tiles, or normalise it as a slide",
        )


def _pil_to_array(image: Any) -> NDArray[Any]:
    from PIL import Image

    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba).convert("RGB")
    elif image.mode == "P":
        image = image.convert("RGB")
    return np.asarray(image)
