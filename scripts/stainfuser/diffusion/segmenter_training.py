"""Train the segmentation network of the downstream task: seeded, on one stain, in minutes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.errors import TrainingError
from stainfuser.logs import progress
from stainfuser.nn.segmenter import (
    MULTIPLE_PX,
    Segmenter,
    SegmenterParams,
    class_weights,
    segmentation_loss,
)
from stainfuser.seeds import derive_seed, generator
from stainfuser.stain.nucleus_targets import labels_of_prediction, learning_targets

WARMUP_FRACTION, WEIGHT_DECAY, MAX_GRADIENT_NORM = 0.1, 1e-3, 1.0


@dataclass(frozen=True)
class SegmenterTraining:
    """Optimiser steps, tiles per step, side of crops (px) and peak rate of AdamW."""

    steps: int
    batch_size: int
    crop_px: int
    learning_rate: float


class TrainedSegmenter(NamedTuple):
    """The network in evaluation mode, and the loss of every step."""

    network: Segmenter
    losses: list[float]


def train_network(
    images: NDArray[np.uint8],
    labels: NDArray[np.int32],
    params: SegmenterParams,
    options: SegmenterTraining,
    seed: int,
) -> TrainedSegmenter:
    """Train on (N, S, S, 3) uint8 RGB and (N, S, S, 2) labels, with flips and turns only.

    The same arguments and number of threads give the same weights. Raises `TrainingError` for a
    loss that is not finite.
    """
    torch.manual_seed(derive_seed(seed, "segmenter", "weights") % 2**63)
    network = Segmenter(params)
    targets = np.stack([learning_targets(label) for label in labels])
    pixels = [
        float((targets[:, 1] == number).sum()) for number in range(1, len(params.classes) + 1)
    ]
    weights = class_weights(pixels)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, options.learning_rate, total_steps=options.steps + 1, pct_start=WARMUP_FRACTION
    )
    rng = generator(seed, "segmenter", "crops")
    losses: list[float] = []
    network.train()
    for step in progress(range(options.steps), "training the segmentation network"):
        rgb, wanted = _draw_batch(images, targets, options, rng)
        loss = segmentation_loss(network(rgb), wanted, weights)
        if not torch.isfinite(loss):
            remedy = "lower downstream.learning_rate"
            raise TrainingError(
                "segmentation network", f"the loss of step {step} is {loss}", remedy
            )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return TrainedSegmenter(network.eval(), losses)


def segment(network: Segmenter, images: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Return (N, H, W, 2) int32 labels of (N, H, W, 3) uint8 RGB."""
    found = network.predict(images)
    parts = zip(found.nucleus, found.depth, found.classes, strict=True)
    return np.stack([labels_of_prediction(*part, network.params.mpp) for part in parts])


def _draw_batch(
    images: NDArray[np.uint8],
    targets: NDArray[np.float32],
    options: SegmenterTraining,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return (B, 3, C, C) RGB in [0, 1] and (B, 2, C, C) targets of random crops."""
    crops, answers = [], []
    side = min(options.crop_px, *images.shape[1:3]) // MULTIPLE_PX * MULTIPLE_PX
    for _ in range(options.batch_size):
        row = int(rng.integers(len(images)))
        y, x = (int(rng.integers(length - side + 1)) for length in images.shape[1:3])
        rgb = images[row, y : y + side, x : x + side].transpose(2, 0, 1)
        wanted = targets[row, :, y : y + side, x : x + side]
        turns, is_flipped = int(rng.integers(4)), rng.random() < 0.5
        for part, out in ((rgb, crops), (wanted, answers)):
            turned = np.rot90(part, turns, (1, 2))
            out.append(np.ascontiguousarray(turned[:, ::-1] if is_flipped else turned))
    return torch.from_numpy(np.stack(crops)).float() / 255.0, torch.from_numpy(np.stack(answers))
