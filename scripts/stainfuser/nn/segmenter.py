"""A small network that finds, divides and classifies nuclei, to measure stains by.

A U-Net (Ronneberger et al. 2015) on px taken together by fours, so that it runs on a CPU. Per px it
gives what HoVer-Net and StarDist show to suffice in one form or another: is it nucleus, how deep
inside of its nucleus is it, and of which class. It has batch normalisation and no stain
augmentation on purpose: it is to depend on the stain it was trained on as published networks do.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from stainfuser.errors import InputError
from stainfuser.files import atomic_path, read_json, write_json

# Sides of images are padded to multiples of this, px.
MULTIPLE_PX = 8
WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclasses.dataclass(frozen=True)
class SegmenterParams:
    """What is built, and for which images.

    Attributes
    ----------
    classes
        Names of the classes 1 to C.
    mpp
        Resolution it was trained at, um per px.
    widths
        Channels at 1/2, 1/4 and 1/8 of the resolution.
    """

    classes: tuple[str, ...]
    mpp: float
    widths: tuple[int, int, int]


class Prediction(NamedTuple):
    """Of (N, H, W) px, float32 arrays: chance of nucleus, depth in [0, 1], (N, C, H, W) classes."""

    nucleus: NDArray[np.float32]
    depth: NDArray[np.float32]
    classes: NDArray[np.float32]


class Block(nn.Sequential):
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for width in (inputs, outputs):
            layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False)]
            layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class Segmenter(nn.Module):
    """(N, 3, H, W) float32 RGB in [0, 1] → (N, 2 + C, H, W): logits of nucleus, depth, classes."""

    def __init__(self, params: SegmenterParams) -> None:
        super().__init__()
        self.params = params
        fine, middle, coarse = params.widths
        self.fine_in, self.middle_in = Block(12, fine), Block(fine, middle)
        self.coarse = Block(middle, coarse)
        self.middle_out, self.fine_out = Block(middle + coarse, middle), Block(fine + middle, fine)
        self.head = nn.Conv2d(fine, 4 * (2 + len(params.classes)), 3, padding=1)

    def forward(self, rgb: Tensor) -> Tensor:
        """See the class; H and W are multiples of 8."""
        fine = self.fine_in(functional.pixel_unshuffle(2.0 * rgb - 1.0, 2))
        middle = self.middle_in(functional.max_pool2d(fine, 2))
        coarse = self.coarse(functional.max_pool2d(middle, 2))
        middle = self.middle_out(torch.cat([middle, _doubled(coarse)], dim=1))
        fine = self.fine_out(torch.cat([fine, _doubled(middle)], dim=1))
        return functional.pixel_shuffle(self.head(fine), 2)

    @torch.no_grad()
    def predict(self, images: NDArray[np.uint8], batch_size: int = 8) -> Prediction:
        """Look at (N, H, W, 3) uint8 RGB of any H and W."""
        height, width = images.shape[1:3]
        pad = (0, -width % MULTIPLE_PX, 0, -height % MULTIPLE_PX)
        found = []
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[start : start + batch_size]))
            rgb = functional.pad(batch.permute(0, 3, 1, 2).float() / 255.0, pad, mode="replicate")
            found.append(self(rgb)[:, :, :height, :width])
        answer = torch.cat(found)
        return Prediction(
            torch.sigmoid(answer[:, 0]).numpy(),
            torch.sigmoid(answer[:, 1]).numpy(),
            torch.softmax(answer[:, 2:], dim=1).numpy(),
        )


def segmentation_loss(answer: Tensor, targets: Tensor, class_weights: Tensor) -> Tensor:
    """Return the loss of (N, 2 + C, H, W) logits, a scalar.

    `targets` is (N, 2, H, W) float32: depth in [0, 1] and class, 0 outside of nuclei; nuclei count
    by cross-entropy and overlap (Dice), depth by squares, classes by weighted cross-entropy on px
    of nuclei.
    """
    depth, classes = targets[:, 0], targets[:, 1].long()
    nucleus = (classes > 0).float()
    chance = torch.sigmoid(answer[:, 0])
    dice = 1 - (2 * (chance * nucleus).sum() + 1) / (chance.sum() + nucleus.sum() + 1)
    found = functional.binary_cross_entropy_with_logits(answer[:, 0], nucleus) + dice
    deep = (torch.sigmoid(answer[:, 1]) - depth).square().mean()
    kind = functional.cross_entropy(
        answer[:, 2:], classes - 1, weight=class_weights, ignore_index=-1, reduction="sum"
    ) / nucleus.sum().clamp_min(1)
    return found + 5 * deep + 0.5 * kind


def save_segmenter(network: Segmenter, folder: Path, stamp: Mapping[str, str]) -> None:
    """Write weights (safetensors, with the stamp) and `config.json` into a folder."""
    from safetensors.torch import save_file

    state = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(folder / WEIGHTS) as partial:
        # One entry: several are written in an order that changes from run to run.
        save_file(state, partial, metadata={"stamp": json.dumps(dict(stamp), sort_keys=True)})
    write_json(folder / CONFIG, dataclasses.asdict(network.params))


def load_segmenter(folder: str | Path) -> Segmenter:
    """Read a folder of `save_segmenter`; `InputError` where it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        config = read_json(folder / CONFIG)
        params = SegmenterParams(tuple(config["classes"]), config["mpp"], tuple(config["widths"]))
        network = Segmenter(params)
        network.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        wrong = f"not the folder of a segmentation network ({type(error).__name__})"
        raise InputError(folder, wrong, "run train_segmenter again") from None
    return network.eval()


def class_weights(pixels: Sequence[float]) -> Tensor:
    """Return weights of classes by their px: inverse root of the share, 0 where there are none."""
    share = torch.tensor(list(pixels), dtype=torch.float32)
    weights = torch.where(share > 0, share.clamp_min(1).rsqrt(), torch.zeros_like(share))
    return weights / (weights * share).sum().clamp_min(1e-9) * share.sum().clamp_min(1e-9)


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2, mode="nearest")
