"""Training the class matcher of an operator head further, on many more pairs than the whole sees.

The encoder and its classes stay as they are. What the matcher has to learn is what class statistics
say of an operator when the two sides show other tissue; that takes pairs by the hundred thousand,
and they are cheap once tiles are encoded (`tile_samples`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from stainfuser.diffusion.head_state import TrainingState
from stainfuser.diffusion.head_training import WANTED_STRUCTURE
from stainfuser.diffusion.matcher_data import (
    MatcherBatch,
    PhantomBank,
    TileBank,
    draw_phantoms,
    draw_recolourings,
)
from stainfuser.diffusion.tile_samples import HERE
from stainfuser.files import sha256_content
from stainfuser.logs import progress
from stainfuser.nn.class_matcher import Match
from stainfuser.nn.od_torch import (
    LUMINANCE,
    apply_relative_operator,
    cie94_square,
    od_to_rgb,
    rgb_to_lab,
)
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.seeds import generator

LOGGER = logging.getLogger("stainfuser")
SAVE_EVERY = 250
# As in `head_training`, the colour a little more beside structure, which holds by now.
LOSS_WEIGHTS = {"rgb": 0.04, "structure": 10.0, "log_error": 0.05}
LABEL_WEIGHTS = (0.5, 2.0, 1.0)
# Names of what `matcher_losses` returns.
LOSSES = ("colour", "rgb", "structure", "log_error", "error", "total")


@dataclass(frozen=True)
class MatcherTrainingOptions:
    """`steps` of `examples_per_step` pairs, a share of the steps on phantoms; as for the head."""

    steps: int
    examples_per_step: int
    phantom_share: float
    learning_rate: float
    weight_decay: float


def train_matcher(
    head: OperatorHead,
    tiles: TileBank,
    phantoms: PhantomBank,
    options: MatcherTrainingOptions,
    *,
    seed: int,
    work_dir: str | Path,
) -> tuple[OperatorHead, list[dict[str, float]]]:
    """Train the matcher of a head further; return the running mean and the losses of every step.

    It gets a context of its own (`OperatorHead.with_own_context`): that of `head` says what the
    classes are, which must not change. A checkpoint in `work_dir` is continued, as by
    `head_training.train_head`.

    Raises
    ------
    TrainingError
        The loss is not finite, or the checkpoint belongs to another configuration.
    """
    started_from = sha256_content([value.tolist() for value in head.state_dict().values()])
    if not head.params.own_context:
        head = head.with_own_context()
    head.requires_grad_(False)
    learning = [*head.matcher.parameters(), *head.matcher_context.parameters()]
    for parameter in learning:
        parameter.requires_grad_(True)
    state = TrainingState(
        head,
        learning,
        options,
        seed,
        Path(work_dir) / "matcher.pt",
        [started_from],
    )
    state.resume()
    head.train()
    remaining = range(state.step, options.steps)
    for step in progress(remaining, "class matcher", initial=state.step, total=options.steps):
        is_phantom = generator(seed, "matcher", "kind", step).random() < options.phantom_share
        draw, bank = (draw_phantoms, phantoms) if is_phantom else (draw_recolourings, tiles)
        batch = draw(bank, options.examples_per_step, seed, step)
        state.update(matcher_losses(head, batch))
        if state.step % SAVE_EVERY == 0 or state.step == options.steps:
            state.save()
            recent = [losses["error"] for losses in state.losses[-SAVE_EVERY:]]
            LOGGER.info("step %d: error %.3f", state.step, sum(recent) / len(recent))
    return state.average, state.losses


def matcher_losses(head: OperatorHead, batch: MatcherBatch) -> dict[str, Tensor]:
    """Return the parts of the loss and their weighted sum, ``total``; both ways of each pair."""
    there = _match_losses(
        head.match(batch.source, batch.target), batch.source_od, batch.truth, batch.source_labels
    )
    back = _match_losses(
        head.match(batch.target, batch.source), batch.target_od, batch.other, batch.target_labels
    )
    losses = {name: (value + back[name]) / 2 for name, value in there.items()}
    weighted = sum(weight * losses[name] for name, weight in LOSS_WEIGHTS.items())
    return losses | {"total": losses["colour"] + weighted}


def _match_losses(match: Match, od: Tensor, truth_od: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the losses of one direction, of pixels as in `MatcherBatch`."""
    before = od_to_rgb(od)
    after = apply_relative_operator(match.relative, match.white, before)
    result, truth = after[:, :, HERE], od_to_rgb(truth_od)
    square = cie94_square(rgb_to_lab(result), rgb_to_lab(truth))
    weights = labels.new_tensor(LABEL_WEIGHTS, dtype=torch.float32)[labels]
    weights = weights / weights.mean(dim=(1, 2), keepdim=True)
    error = square.detach().clamp(min=1e-6).sqrt().mean(dim=(1, 2))
    return {
        "colour": (weights * (square + 0.25).sqrt()).mean(),
        "rgb": (result - truth).abs().mean(),
        "structure": F.relu(WANTED_STRUCTURE - _structure(before, after)).mean(),
        "log_error": (match.log_error - error.log()).square().mean(),
        "error": error.mean(),
    }


def _structure(before: Tensor, after: Tensor) -> Tensor:
    """Return (B,): correlation of the luminance gradients of (B, n, 3, P, 3) pixels."""
    gradients = []
    for rgb in (before, after):
        luminance = rgb @ rgb.new_tensor(LUMINANCE)
        steps = luminance[:, :, 1:] - luminance[:, :, :1]
        flat = steps.flatten(1)
        gradients.append(flat - flat.mean(1, keepdim=True))
    return F.cosine_similarity(*gradients, dim=1)
