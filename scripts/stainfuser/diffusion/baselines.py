"""Trained baselines as files and as functions: unpaired crops, training, loading, applying."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stainfuser.diffusion.baseline_networks import NETWORKS, BaselineParams, build_network
from stainfuser.diffusion.images import reflect_pad, to_uint8
from stainfuser.diffusion.pairs import as_tensor
from stainfuser.errors import InputError, TrainingError
from stainfuser.files import atomic_path, read_json, write_json
from stainfuser.nn.translators import MULTIPLE_PX
from stainfuser.seeds import generator
from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.target_tiles import TISSUE_OD

BASELINES = tuple(NETWORKS)
CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
FAILURE_NAME = "failure.json"
# The part of a baseline that is applied; the rest only teaches it.
APPLIED = "generator."
# Crops with less tissue than this are drawn again, so often.
LEAST_TISSUE, ATTEMPTS = 0.3, 6
# Mirrored around an image, px: convolutions pad with zeros, which would colour its rim.
RIM_PX = 16

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class UnpairedTiles:
    """What baselines learn from: tiles of the slides (N, S, S, 3) and one target (H, W, 3)."""

    sources: Images
    target: Images
    crop_px: int

    def draw(self, count: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Return crops of sources and of the target, (count, 3, crop, crop) in [-1, 1]."""
        rng = generator(seed, "unpaired tiles", step)
        tiles = self.sources[rng.integers(0, len(self.sources), count)]
        sources = [_crop(tile, self.crop_px, rng) for tile in tiles]
        targets = [_crop(self.target, self.crop_px, rng) for _ in range(count)]
        return as_tensor(sources) * 2 - 1, as_tensor(targets) * 2 - 1


def unpaired_loss(
    tiles: UnpairedTiles, batch_size: int, seed: int
) -> Callable[[nn.Module, int, int], Tensor]:
    """Return the loss of a step for `optimization.optimize`."""

    def loss_of(network: nn.Module, step: int, stream: int) -> Tensor:
        device = next(network.parameters()).device
        source, target = (crops.to(device) for crops in tiles.draw(batch_size, seed, step))
        return network.loss(source, target, generator(seed, "baseline", step, stream))

    return loss_of


def save_baseline(
    folder: Path, network: nn.Module, params: BaselineParams, stamp: Mapping[str, str]
) -> None:
    """Write ``config.json`` and the part that is applied as ``model.safetensors``."""
    from safetensors.torch import save_file

    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in network.state_dict().items()
        if name.startswith(APPLIED)
    }
    with atomic_path(folder / WEIGHTS_NAME) as partial:
        # One entry: safetensors writes several in an order that changes from run to run.
        save_file(tensors, partial, metadata={"stamp": json.dumps(dict(stamp), sort_keys=True)})
    write_json(folder / CONFIG_NAME, {**params.to_dict(), "stamp": dict(stamp)})


def save_failure(folder: Path, error: TrainingError, stamp: Mapping[str, str]) -> None:
    """Write why there are no weights."""
    failure = {"where": error.where, "wrong": error.wrong, "remedy": error.remedy}
    write_json(folder / FAILURE_NAME, {**failure, "stamp": dict(stamp)})


def load_baseline(folder: str | Path) -> Callable[[Images], Images]:
    """Return a trained baseline as a function of (N, H, W, 3) uint8 RGB images of any size.

    The result of an image does not depend on the others it is called with.

    Raises
    ------
    InputError
        The folder holds no baseline, or its weights are damaged, of another shape or not finite.
    TrainingError
        Its training failed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder, remedy = Path(folder), "train it again (rule train_baseline)"
    if (folder / FAILURE_NAME).is_file():
        failure = read_json(folder / FAILURE_NAME)
        raise TrainingError(failure["where"], failure["wrong"], failure["remedy"])
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise InputError(folder, f"it has no {name}", remedy)
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        config.pop("stamp", None)
        network = build_network(BaselineParams(**config), seed=0)
        weights = load_file(folder / WEIGHTS_NAME)
        wanted = {name for name in network.state_dict() if name.startswith(APPLIED)}
        if set(weights) != wanted:
            raise ValueError("the weights are of another network")
        network.load_state_dict(weights, strict=False)
    except (ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        found = f"it does not hold a baseline ({str(error).splitlines()[0]})"
        raise InputError(folder, found, remedy) from None
    if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
        raise InputError(folder / WEIGHTS_NAME, "some weights are not finite", remedy)
    return as_function(network)


def as_function(network: nn.Module) -> Callable[[Images], Images]:
    """Return a baseline's network as a function of (N, H, W, 3) uint8 RGB images."""
    network = network.eval()

    @torch.no_grad()
    def normalize(images: Images) -> Images:
        device = next(network.parameters()).device
        # One at a time: convolutions of a batch may round differently than those of one image.
        return np.stack([_applied(network, image, device) for image in images])

    return normalize


def _applied(network: nn.Module, image: Images, device: torch.device) -> Images:
    rows, columns = (slice(RIM_PX, RIM_PX + side) for side in image.shape[:2])
    wide = np.pad(image, ((RIM_PX, RIM_PX), (RIM_PX, RIM_PX), (0, 0)), mode="symmetric")
    padded = reflect_pad(as_tensor([wide]).to(device), MULTIPLE_PX)
    result = network.translate(padded * 2 - 1)[0, :, rows, columns]
    return to_uint8(result / 2 + 0.5)


def _crop(image: Images, crop_px: int, rng: np.random.Generator) -> Images:
    """Cut a square crop, with tissue if it is found, turned and mirrored at random."""
    for _ in range(ATTEMPTS):
        top, left = (int(rng.integers(0, side - crop_px + 1)) for side in image.shape[:2])
        crop = image[top : top + crop_px, left : left + crop_px]
        if (rgb_to_od(crop[::4, ::4]).mean(axis=-1) > TISSUE_OD).mean() >= LEAST_TISSUE:
            break
    crop = np.rot90(crop, int(rng.integers(4)))
    return np.ascontiguousarray(crop[:, ::-1] if rng.random() < 0.5 else crop)
