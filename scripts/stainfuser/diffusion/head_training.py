"""Training the operator head: seeded, resumable to the identical curve, stopped by a NaN."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stainfuser.diffusion.head_data import COLOUR_STEP, HeadBatch, draw_batch
from stainfuser.diffusion.training_images import TrainingImage
from stainfuser.errors import TrainingError
from stainfuser.files import atomic_path, sha256_content
from stainfuser.logs import progress
from stainfuser.nn.class_matcher import Match
from stainfuser.nn.od_torch import (
    apply_relative_operator,
    cie94_square,
    luminance_gradients,
    rgb_to_lab,
)
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.seeds import derive_seed

LOGGER = logging.getLogger("stainfuser")
# Weights of the parts of the loss; the colour difference itself has the weight 1.
LOSS_WEIGHTS = {
    "rgb": 0.04,
    "structure": 20.0,
    "groups": 0.3,
    "is_he": 0.5,
    "log_error": 0.05,
    "sameness": 2.0,
}
# Of a pixel in the colour difference, by its weak label: glass, nuclei, other tissue.
LABEL_WEIGHTS = (0.5, 3.0, 1.0)
# Gradient correlation with the source below which an operator is punished.
WANTED_STRUCTURE = 0.985
# Labels are taken at the resolution of the classes.
LABEL_STEP = 2
MAX_GRADIENT_NORM = 1.0
WARM_UP_STEPS = 100
FINAL_RATE_FRACTION = 0.02
EMA_DECAY = 0.99


@dataclass(frozen=True)
class HeadTrainingOptions:
    """`steps` of `tiles_per_step` tiles of `tile_px` px; peak `learning_rate`, `weight_decay`."""

    steps: int
    tiles_per_step: int
    tile_px: int
    learning_rate: float
    weight_decay: float


def train_head(
    head: OperatorHead,
    images: Sequence[TrainingImage],
    options: HeadTrainingOptions,
    *,
    seed: int,
    work_dir: str | Path,
    save_every: int = 100,
) -> tuple[OperatorHead, list[dict[str, float]]]:
    """Train `head` in place; return its running mean (EMA) and the losses of every step.

    A checkpoint in `work_dir` of the same options and seed is continued; the result is the same
    as without the interruption.

    Raises
    ------
    TrainingError
        The loss is not finite, or the checkpoint belongs to another configuration.
    """
    state = _TrainingState(head, options, seed, Path(work_dir) / "head.pt")
    state.resume()
    head.train()
    remaining = range(state.step, options.steps)
    for step in progress(remaining, "operator head", initial=state.step, total=options.steps):
        batch = draw_batch(images, options.tiles_per_step, options.tile_px, seed, step)
        losses = head_losses(head, batch)
        state.update(losses)
        if state.step % save_every == 0 or state.step == options.steps:
            state.save()
            LOGGER.info("step %d: %s", state.step, _recent(state.losses, save_every))
    return state.average, state.losses


def head_losses(head: OperatorHead, batch: HeadBatch) -> dict[str, Tensor]:
    """Return the parts of the loss and their weighted sum, ``total``; ``colour`` is CIE94."""
    source, seen = head.statistics(_channels_first(batch.source))
    target, seen_target = head.statistics(_channels_first(batch.target))
    usable = batch.is_he.prod(dim=1)
    grid = (slice(None), slice(None), *[slice(None, None, COLOUR_STEP)] * 2)
    there, back = (
        _match_losses(match, sampled[grid], truth, _pixel_weights(labels[grid]), usable)
        for match, sampled, truth, labels in (
            (head.match(source, target), batch.source, batch.truth, batch.source_labels),
            (head.match(target, source), batch.target, batch.other[grid], batch.target_labels),
        )
    )
    recognized = head.recognize(_channels_first(batch.other), seen)
    he = torch.stack([head.he_logit(side) for side in (source, target)], dim=1)
    losses = {name: (value + back[name]) / 2 for name, value in there.items()} | {
        "sameness": _sameness_loss(recognized, seen_target.logits, usable),
        "groups": _group_loss(seen.group_logits, batch.source_labels, batch.is_he[:, 0])
        + _group_loss(seen_target.group_logits, batch.target_labels, batch.is_he[:, 1]),
        "is_he": F.binary_cross_entropy_with_logits(he, batch.is_he),
    }
    losses["total"] = losses["colour"] + sum(
        weight * losses[name] for name, weight in LOSS_WEIGHTS.items()
    )
    return losses


def _pixel_weights(labels: Tensor) -> Tensor:
    """Return (B, n, h, w) weights, mean 1: a few nuclei decide whether tissue can be read."""
    weights = labels.new_tensor(LABEL_WEIGHTS, dtype=torch.float32)[labels]
    return weights / weights.mean(dim=(1, 2, 3), keepdim=True)


def _match_losses(
    match: Match, sampled: Tensor, truth: Tensor, weights: Tensor, usable: Tensor
) -> dict[str, Tensor]:
    """Return the losses of one direction, on (B, n, h, w, 3) pixels and what they should become."""
    result = apply_relative_operator(match.relative, match.white, sampled)
    square = cie94_square(rgb_to_lab(result), rgb_to_lab(truth))
    error = square.detach().clamp(min=1e-6).sqrt().mean(dim=(1, 2, 3))
    return {
        # Smooth at zero: the last half unit of error is below what anyone sees.
        "colour": _mean((weights * (square + 0.25).sqrt()).mean(dim=(1, 2, 3)), usable),
        "rgb": _mean((result - truth).abs().mean(dim=(1, 2, 3, 4)), usable),
        "structure": _mean(F.relu(WANTED_STRUCTURE - structure(result, sampled)), usable),
        "log_error": _mean((match.log_error - error.log()).square(), usable),
        "error": _mean(error, usable),
    }


def structure(result: Tensor, source: Tensor) -> Tensor:
    """Return (B,): correlation of the luminance gradients of (B, n, H, W, 3) tiles."""
    before, after = (
        torch.cat([g.flatten(1) for g in luminance_gradients(rgb)], dim=1)
        for rgb in (source, result)
    )
    return F.cosine_similarity(before - before.mean(1, True), after - after.mean(1, True), dim=1)


@torch.no_grad()
def mean_losses(head: OperatorHead, batches: Sequence[HeadBatch]) -> dict[str, float]:
    """Return the mean of each loss over some batches (validation)."""
    head.eval()
    all_losses = [head_losses(head, batch) for batch in batches]
    return {n: float(torch.stack([x[n] for x in all_losses]).mean()) for n in all_losses[0]}


class _TrainingState:
    """Model, optimiser, running mean and losses, as one checkpoint."""

    def __init__(
        self, head: OperatorHead, options: HeadTrainingOptions, seed: int, path: Path
    ) -> None:
        self.head, self.options, self.path = head, options, path
        self.average = copy.deepcopy(head).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            head.parameters(), options.learning_rate, weight_decay=options.weight_decay
        )
        self.step = 0
        self.losses: list[dict[str, float]] = []
        self.configuration = sha256_content(
            [vars(options), head.params.to_dict(), derive_seed(seed, "operator_head")]
        )

    def update(self, losses: dict[str, Tensor]) -> None:
        """Take one step of the optimiser; raise `TrainingError` where the loss is not finite."""
        if not torch.isfinite(losses["total"]):
            found = f"the loss of step {self.step} is not finite"
            remedy = f"lower the learning rate; the last good state is in {self.path.name}"
            raise TrainingError("operator head", found, remedy)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.learning_rate * self._rate()
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        norm = torch.nn.utils.clip_grad_norm_(self.head.parameters(), MAX_GRADIENT_NORM)
        # A singular solve gives a finite loss and an endless gradient: leave such a step out.
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        self._average()
        self.losses.append({name: float(value.detach()) for name, value in losses.items()})

    def save(self) -> None:
        """Write the checkpoint atomically."""
        content: dict[str, Any] = {
            "configuration": self.configuration,
            "step": self.step,
            "losses": self.losses,
            "head": self.head.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        with atomic_path(self.path) as partial:
            torch.save(content, partial)

    def resume(self) -> None:
        """Continue from the checkpoint, if there is one."""
        if not self.path.exists():
            return
        content = torch.load(self.path, weights_only=True)
        if content["configuration"] != self.configuration:
            found = "the checkpoint was written with other options or another seed"
            raise TrainingError(self.path, found, "remove it or restore the options")
        self.step, self.losses = content["step"], content["losses"]
        self.head.load_state_dict(content["head"])
        self.average.load_state_dict(content["average"])
        self.optimizer.load_state_dict(content["optimizer"])

    def _rate(self) -> float:
        """Return the share of the learning rate: warm-up, then half a cosine."""
        done = self.step / self.options.steps
        cosine = 0.5 * (1 + math.cos(math.pi * done))
        return min(1.0, (self.step + 1) / WARM_UP_STEPS) * max(FINAL_RATE_FRACTION, cosine)

    def _average(self) -> None:
        decay = min(EMA_DECAY, self.step / (self.step + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.head.parameters(), strict=True):
                mean.lerp_(value, 1 - decay)


def _channels_first(tiles: Tensor) -> Tensor:
    return tiles.movedim(-1, -3).contiguous()


def _sameness_loss(first: Tensor, second: Tensor, usable: Tensor) -> Tensor:
    """Return minus the information that the classes of one tissue in two stains share, nats.

    Invariant information clustering (Ji et al. 2019): largest where every pixel has one class,
    the same in both stains, and all classes are used. Logits are (B * n, K, h, w).
    """
    weights = usable.repeat_interleave(len(first) // len(usable))[:, None, None]
    shares = [logits.flatten(2).softmax(dim=1) for logits in (first, second)]
    joint = ((shares[0] * weights) @ shares[1].transpose(1, 2)).sum(0)
    joint = (joint + joint.T).clamp(min=1e-9)
    joint = joint / joint.sum()
    marginal = joint.sum(1, keepdim=True)
    return -(joint * (joint / (marginal * marginal.T)).log()).sum()


def _group_loss(logits: Tensor, labels: Tensor, usable: Tensor) -> Tensor:
    """Return the cross-entropy of (B * n, 3, h, w) logits on the weak labels of H&E images."""
    grid = labels[..., ::LABEL_STEP, ::LABEL_STEP].flatten(0, 1)
    loss = F.cross_entropy(logits, grid, reduction="none")
    return _mean(loss.mean(dim=(1, 2)).unflatten(0, labels.shape[:2]).mean(dim=1), usable)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp(min=1.0)


def _recent(losses: list[dict[str, float]], count: int) -> str:
    recent = losses[-count:]
    return ", ".join(f"{n} {sum(x[n] for x in recent) / len(recent):.3f}" for n in recent[0])
