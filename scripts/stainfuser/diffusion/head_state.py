"""The state of a training of the operator head or of a part of it: one checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stainfuser.errors import TrainingError
from stainfuser.files import atomic_path, sha256_content
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.seeds import derive_seed

MAX_GRADIENT_NORM = 1.0
WARM_UP_STEPS = 100
FINAL_RATE_FRACTION = 0.02
EMA_DECAY = 0.99


class Options(Protocol):
    """What every training of the head is told."""

    steps: int
    learning_rate: float
    weight_decay: float


class TrainingState:
    """Model, optimiser, running mean and losses, as one checkpoint.

    `parameters` are those of `head` that learn; the others stay as they are. A checkpoint belongs
    to the options, the seed and what else `identity` names.
    """

    def __init__(
        self,
        head: OperatorHead,
        parameters: Iterable[nn.Parameter],
        options: Options,
        seed: int,
        path: Path,
        identity: Sequence[object] = (),
    ) -> None:
        self.head, self.options, self.path = head, options, path
        self.parameters = list(parameters)
        self.average = copy.deepcopy(head).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.parameters, options.learning_rate, weight_decay=options.weight_decay
        )
        self.step = 0
        self.losses: list[dict[str, float]] = []
        self.configuration = sha256_content(
            [vars(options), head.params.to_dict(), derive_seed(seed, "operator_head"), *identity]
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
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, MAX_GRADIENT_NORM)
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
