"""The optimisation loop both phases share: step, average, checkpoint, resume to the same curve."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from stainfuser.diffusion.checkpoints import Checkpoint, load_last_checkpoint, save_checkpoint
from stainfuser.diffusion.ema import ExponentialAverage
from stainfuser.errors import TrainingError
from stainfuser.files import atomic_path
from stainfuser.logs import LOGGER, progress

# Folder, within that of the checkpoints, of the one with the least validation loss.
BEST = "best"

Row = list[Any]
"""phase, step, loss, learning rate."""
Validate = Callable[[nn.Module], dict[str, float]]
"""Losses on examples kept out of training, by what is new in them."""
Judge = Callable[[Sequence[float]], float]


@dataclass(frozen=True)
class OptimizationParameters:
    """How one phase is optimised; `warmup_steps` of linear warm-up, then a cosine to zero.

    `betas` are AdamW's; `rate_key` is the configuration key of the learning rate, for errors.
    """

    phase: str
    steps: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float
    ema_decay: float
    max_gradient_norm: float
    gradient_accumulation: int
    checkpoint_steps: int
    betas: tuple[float, float] = (0.9, 0.999)
    rate_key: str = "train.learning_rate"


def learning_rate_at(parameters: OptimizationParameters, step: int) -> float:
    """Return the learning rate of a step, counted from 0."""
    warm = min((step + 1) / max(parameters.warmup_steps, 1), 1.0)
    rest = max(parameters.steps - parameters.warmup_steps, 1)
    done = min(max(step - parameters.warmup_steps, 0) / rest, 1.0)
    return parameters.learning_rate * warm * 0.5 * (1.0 + math.cos(math.pi * done))


def optimize(
    module: nn.Module,
    loss_of: Callable[[nn.Module, int, int], Tensor],
    parameters: OptimizationParameters,
    accelerator: Any,
    folder: Path,
    validate: Validate | None = None,
    judge: Judge = mean,
) -> list[Row]:
    """Optimise a module's trainable weights and leave their best moving average in it.

    Parameters
    ----------
    module
        Trainable weights are those that require a gradient.
    loss_of
        (module, step, micro-batch) → scalar loss; must be a function of its arguments only, so
        that a resumed run goes on exactly where the killed one was.
    parameters
        See there.
    accelerator
        accelerate's `Accelerator`.
    folder
        Where checkpoints are kept; the newest one is continued.
    validate
        Called with the averaged weights before the first step and at every checkpoint. The module
        is left with the weights that `judge` finds best, the first ones included; without
        `validate`, with the last ones.
    judge
        Losses found, each relative to what it was before the first step → the number that is least
        for the best weights. With `max` nothing that is held out may get worse.

    Returns
    -------
    list of rows (phase, step, loss, learning rate), all steps since the very first. What
    `validate` found stands in rows of phase "<phase> validation <name>", and what `judge` made of
    it in "<phase> validation".

    Raises
    ------
    TrainingError
        The loss or its gradient is not finite; the last checkpoint stays.
    """
    trainable = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        trainable,
        lr=parameters.learning_rate,
        betas=parameters.betas,
        weight_decay=parameters.weight_decay,
    )
    average = ExponentialAverage(module, parameters.ema_decay)
    rows = _resume(folder, module, optimizer, average, accelerator)
    first = sum(row[0] == parameters.phase for row in rows)
    prepared, optimizer = accelerator.prepare(module, optimizer)
    phase = parameters.phase
    if validate is not None and first == 0:
        rows += _validation_rows(
            prepared, validate, average, phase, 0, 0.0, accelerator, rows, judge
        )
        _keep_best(folder, phase, 0, average, rows, accelerator)
    steps = range(first, parameters.steps)
    for step in progress(steps, parameters.phase, total=parameters.steps, initial=first):
        rate = learning_rate_at(parameters, step)
        loss = _step(prepared, loss_of, step, rate, optimizer, accelerator, parameters)
        average.update(accelerator.unwrap_model(prepared), step)
        rows.append([parameters.phase, step + 1, loss, rate])
        is_last = step + 1 == parameters.steps
        if (step + 1) % parameters.checkpoint_steps == 0 or is_last:
            if validate is not None:
                rows += _validation_rows(
                    prepared, validate, average, phase, step + 1, rate, accelerator, rows, judge
                )
                _keep_best(folder, phase, step + 1, average, rows, accelerator)
            _keep(folder, step + 1, prepared, average, optimizer, rows, accelerator)
    best = load_last_checkpoint(folder / BEST)
    if best is not None:
        LOGGER.info("%s: the best checkpoint is that of step %d", parameters.phase, best.step)
        average.load(best.average)
    average.copy_to(module)
    return rows


def write_losses(path: str | Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV, losses and learning rates to the last digit."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle, lineterminator="\n")
        table.writerow(["phase", "step", "loss", "learning_rate"])
        table.writerows([phase, step, repr(loss), repr(rate)] for phase, step, loss, rate in rows)


def _step(
    prepared: nn.Module,
    loss_of: Callable[[nn.Module, int, int], Tensor],
    step: int,
    rate: float,
    optimizer: Any,
    accelerator: Any,
    parameters: OptimizationParameters,
) -> float:
    """Make one optimisation step of `gradient_accumulation` micro-batches; return the mean loss."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    total = 0.0
    for micro in range(parameters.gradient_accumulation):
        with accelerator.accumulate(prepared):
            # The prepared module runs in mixed precision; statistics around it must not.
            loss = loss_of(prepared, step, micro)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(
                    prepared.parameters(), parameters.max_gradient_norm
                )
                _check_finite(parameters, step, float(norm), "gradient")
            optimizer.step()
            optimizer.zero_grad()
        value = float(accelerator.reduce(loss.detach().float(), reduction="mean"))
        _check_finite(parameters, step, value, "loss")
        total += value
    return total / parameters.gradient_accumulation


def _check_finite(parameters: OptimizationParameters, step: int, value: float, what: str) -> None:
    if not math.isfinite(value):
        raise TrainingError(
            f"{parameters.phase} step {step + 1}",
            f"the {what} is {value}, expected a finite number",
            f"lower {parameters.rate_key}; the last good checkpoint is kept",
        )


def _validation_rows(
    prepared: nn.Module,
    validate: Validate,
    average: ExponentialAverage,
    phase: str,
    step: int,
    rate: float,
    accelerator: Any,
    known: list[Row],
    judge: Judge,
) -> list[Row]:
    module = accelerator.unwrap_model(prepared)
    with average.applied(module), torch.no_grad():
        found = validate(module)
    name = validation_phase(phase)
    rows = [[f"{name} {part}", step, value, rate] for part, value in found.items()]
    first = {row[0]: row[2] for row in known if row[1] == 0}
    relative = [row[2] / max(first.get(row[0], row[2]), 1e-9) for row in rows]
    return [[name, step, judge(relative), rate], *rows]


def validation_phase(phase: str) -> str:
    """Return the name of the rows that hold the loss by which the best of a phase is chosen."""
    return f"{phase} validation"


def _keep_best(
    folder: Path,
    phase: str,
    step: int,
    average: ExponentialAverage,
    rows: list[Row],
    accelerator: Any,
) -> None:
    """Write the averaged weights beside the checkpoints if none were better so far."""
    validated = [row[2] for row in rows if row[0] == validation_phase(phase)]
    if accelerator.is_main_process and validated[-1] <= min(validated):
        save_checkpoint(folder / BEST, Checkpoint(step, {}, average.shadow, {}, []))
    accelerator.wait_for_everyone()


def _keep(
    folder: Path,
    step: int,
    prepared: nn.Module,
    average: ExponentialAverage,
    optimizer: Any,
    rows: list[Row],
    accelerator: Any,
) -> None:
    """Write a checkpoint from the main process."""
    if accelerator.is_main_process:
        module = accelerator.unwrap_model(prepared)
        weights = {name: w for name, w in module.named_parameters() if w.requires_grad}
        state = optimizer.state_dict()
        save_checkpoint(folder, Checkpoint(step, weights, average.shadow, state, rows))
    accelerator.wait_for_everyone()


def _resume(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: ExponentialAverage,
    accelerator: Any,
) -> list[Row]:
    """Load the newest checkpoint into everything that has state; return its rows."""
    checkpoint = load_last_checkpoint(folder)
    if checkpoint is None:
        return []
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                weight.copy_(checkpoint.weights[name])
    optimizer.load_state_dict(checkpoint.optimizer)
    average.load(checkpoint.average)
    LOGGER.info("%s: continuing after step %d", folder.name, checkpoint.step)
    return checkpoint.rows
