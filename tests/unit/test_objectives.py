"""Objectives: a perfect prediction has to lead to the truth."""

from __future__ import annotations

import pytest
import torch

from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.sampling import denoise
from stainfuser.errors import ConfigError


@pytest.fixture
def latents():
    torch.manual_seed(0)
    return torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_bridge_goes_straight_from_source_to_truth(latents, steps):
    truth, source, noise = latents
    objective = objective_named("bridge")
    scheduler = objective.make_scheduler()
    example = objective.example(truth, source, noise, torch.rand(2), scheduler)
    assert torch.equal(example.sample, source)
    result = denoise(lambda sample, time: example.answer, scheduler, source, steps)
    assert torch.allclose(result, truth, atol=1e-5)


@pytest.mark.parametrize("name", ["epsilon", "v_zero_snr"])
def test_a_perfect_prediction_from_noise_gives_the_truth(latents, name):
    truth, _, noise = latents
    objective = objective_named(name)
    scheduler = objective.make_scheduler()
    alphas = scheduler.alphas_cumprod

    def perfect(sample, time):
        share = alphas[int(time)]
        left = (sample - share.sqrt() * truth) / (1 - share).sqrt()
        if name == "epsilon":
            return left
        return share.sqrt() * left - (1 - share).sqrt() * truth

    result = denoise(perfect, scheduler, noise, 20)
    assert float((result - truth).abs().mean()) < 0.06


def test_examples_follow_the_forward_process(latents):
    truth, source, noise = latents
    objective = objective_named("epsilon")
    scheduler = objective.make_scheduler()
    example = objective.example(truth, source, noise, torch.tensor([0.0, 0.999]), scheduler)
    assert example.timesteps.tolist() == [0, 999]
    assert torch.allclose(example.sample[0], truth[0], atol=0.15)
    assert torch.equal(example.answer, noise)


def test_only_zero_snr_hides_the_truth_at_the_last_step(latents):
    truth, source, noise = latents
    last = torch.tensor([0.9999, 0.9999])
    for name, leaks in (("epsilon", True), ("v_zero_snr", False)):
        objective = objective_named(name)
        scheduler = objective.make_scheduler()
        example = objective.example(100.0 * truth, source, noise, last, scheduler)
        assert torch.allclose(example.sample, noise, atol=1e-3) is not leaks


def test_an_unknown_objective_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="bridge, epsilon, v_zero_snr"):
        objective_named("flow")


def test_a_far_pair_does_not_decide_alone_for_the_bridge():
    prediction = torch.zeros(2, 3, 4, 4)
    near, far = torch.full((3, 4, 4), 0.1), torch.full((3, 4, 4), 10.0)
    answer = torch.stack([near, far])
    shares = {}
    for name in ("bridge", "epsilon"):
        objective = objective_named(name)
        whole = objective.loss(prediction, answer)
        shares[name] = float(objective.loss(prediction[1:], answer[1:]) / (2 * whole))
    assert shares["bridge"] == pytest.approx(10.0 / 10.1, abs=1e-3)
    assert shares["epsilon"] > 0.9998
    assert float(objective_named("bridge").loss(answer, answer)) == pytest.approx(0.01)
