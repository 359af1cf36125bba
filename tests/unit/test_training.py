"""The optimisation loop: schedules, resuming to the same weights, and losses that explode."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from stainfuser.diffusion.checkpoints import load_last_checkpoint
from stainfuser.diffusion.optimization import OptimizationParameters, learning_rate_at, optimize
from stainfuser.diffusion.training import reproducible
from stainfuser.errors import TrainingError

PARAMETERS = OptimizationParameters(
    phase="diffusion",
    steps=12,
    learning_rate=0.1,
    warmup_steps=3,
    weight_decay=0.01,
    ema_decay=0.9,
    max_gradient_norm=1.0,
    gradient_accumulation=1,
    checkpoint_steps=4,
)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def loss_of(module: nn.Module, step: int, micro: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(step * 100 + micro)
    x = torch.randn(8, 4, generator=generator)
    return (module(x) - x.sum(1, keepdim=True)).square().mean()


def run(folder, loss=loss_of, module=None, validate=None, **changes):
    module = model() if module is None else module
    parameters = dataclasses.replace(PARAMETERS, **changes)
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=parameters.gradient_accumulation
    )
    return module, optimize(module, loss, parameters, accelerator, folder, validate)


def test_the_learning_rate_warms_up_and_ends_at_zero():
    rates = [learning_rate_at(PARAMETERS, step) for step in range(13)]
    assert rates[0] == pytest.approx(0.1 / 3)
    assert max(rates) == pytest.approx(0.1)
    assert rates[12] == pytest.approx(0.0, abs=1e-9)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_training_learns_and_counts_its_steps(tmp_path):
    _, rows = run(tmp_path, steps=60)
    assert [row[1] for row in rows] == list(range(1, 61))
    assert rows[-1][2] < 0.2 * rows[0][2]


@pytest.mark.parametrize("death", [4, 6, 11])
def test_a_killed_run_continues_to_the_same_curve_and_weights(tmp_path, death):
    def dying(module, step, micro):
        if step == death:
            raise KeyboardInterrupt
        return loss_of(module, step, micro)

    whole, rows = run(tmp_path / "whole", validate=lambda m: {"new": float(m.weight.sum())})
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", dying, validate=lambda m: {"new": float(m.weight.sum())})
    again, resumed = run(tmp_path / "killed", validate=lambda m: {"new": float(m.weight.sum())})
    assert resumed == rows
    assert torch.equal(again.weight, whole.weight)


def test_a_finished_run_is_not_repeated(tmp_path):
    first, rows = run(tmp_path)

    def never(*_):
        raise AssertionError("trained again")

    second, again = run(tmp_path, never)
    assert again == rows
    assert torch.equal(first.weight, second.weight)


def test_accumulated_batches_count_as_one_step(tmp_path):
    seen = []

    def recording(module, step, micro):
        seen.append((step, micro))
        return loss_of(module, step, micro)

    _, rows = run(tmp_path, recording, steps=3, gradient_accumulation=2)
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]
    assert len(rows) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_with_the_last_good_checkpoint(tmp_path, bad):
    def exploding(module, step, micro):
        loss = loss_of(module, step, micro)
        return loss * bad if step == 9 else loss

    with pytest.raises(TrainingError, match=r"diffusion step 10: the .* is (nan|inf)"):
        run(tmp_path, exploding)
    kept = load_last_checkpoint(tmp_path)
    assert kept.step == 8
    assert torch.isfinite(kept.weights["weight"]).all()


def test_frozen_weights_stay(tmp_path):
    module = model()
    module.bias.requires_grad_(False)
    bias = module.bias.clone()
    run(tmp_path, module=module)
    assert torch.equal(module.bias, bias)


def test_the_number_of_threads_is_fixed_and_given_back():
    before = torch.get_num_threads()
    with reproducible(1):
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == before
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_best_checkpoint_is_what_is_left(tmp_path):
    found = {0: 4.0, 4: 3.0, 8: 1.0, 12: 2.0}
    kept, steps = {}, iter(found)

    def validate(module):
        step = next(steps)
        kept[step] = module.weight.detach().clone()
        return {"tissue": found[step] / 4, "stain": found[step] * 2 if step else 12.0}

    module, rows = run(tmp_path, validate=validate)
    assert torch.equal(module.weight, kept[8])
    # Relative to 1 and 12 at first, the mean of both.
    judged = [row[2] for row in rows if row[0] == "diffusion validation"]
    assert judged == pytest.approx([1.0, 0.625, 0.2083, 0.4167], abs=1e-3)
    losses = [row[2] for row in rows if row[0] == "diffusion validation tissue"]
    assert losses == [1.0, 0.75, 0.25, 0.5]


def test_training_that_only_makes_worse_leaves_the_first_weights(tmp_path):
    losses = iter((1.0, 2.0, 3.0, 4.0))
    module, _ = run(tmp_path, validate=lambda _: {"tissue": next(losses)})
    assert torch.equal(module.weight, model().weight)
