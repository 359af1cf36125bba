"""UNet and ControlNet: zero convolutions, statistics, and tokens that stand for many."""

from __future__ import annotations

import math

import pytest
import torch

from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.sampling import predict
from stainfuser.nn.backbones import build_controlnet, build_unet, compact_parameters
from stainfuser.nn.stain_statistics import StainStatistics

NO_STATISTICS = StainStatistics.of_sample(torch.zeros(1, 4, 3))


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    parameters = compact_parameters(6, 12, (16, 24), 10)
    return build_unet(parameters).eval(), build_controlnet(parameters).eval()


def call(networks, sample, target, control=None, labels=None):
    control = torch.zeros(len(sample), 12, *sample.shape[2:]) if control is None else control
    labels = torch.zeros(len(sample), 10) if labels is None else labels
    with torch.no_grad():
        return predict(*networks, sample, torch.tensor([1000.0]), control, target, labels)


def test_an_untrained_controlnet_adds_nothing(networks):
    torch.manual_seed(1)
    sample, tokens = torch.randn(1, 6, 8, 8), torch.randn(1, 4, 6)
    target = StainTarget(tokens, None, NO_STATISTICS)
    first = call(networks, sample, target, control=torch.randn(1, 12, 8, 8))
    second = call(networks, sample, target, control=torch.randn(1, 12, 8, 8))
    assert torch.equal(first, second)


def test_tokens_and_statistics_steer_the_answer(networks):
    torch.manual_seed(1)
    sample, tokens = torch.randn(1, 6, 8, 8), torch.randn(1, 4, 6)
    target = StainTarget(tokens, None, NO_STATISTICS)
    other = StainTarget(tokens + 1.0, None, NO_STATISTICS)
    plain = call(networks, sample, target)
    assert not torch.allclose(plain, call(networks, sample, other))
    assert not torch.allclose(plain, call(networks, sample, target, labels=torch.ones(1, 10)))


def test_a_log_count_is_as_many_equal_tokens(networks):
    torch.manual_seed(2)
    for module in networks[1].controlnet_down_blocks:
        torch.nn.init.normal_(module.weight)
    sample, tokens = torch.randn(1, 6, 8, 8), torch.randn(1, 2, 6)
    repeated = torch.cat([tokens[:, :1].repeat(1, 5, 1), tokens[:, 1:]], dim=1)
    bias = torch.tensor([[[math.log(5.0), 0.0]]])
    summarised = call(networks, sample, StainTarget(tokens, bias, NO_STATISTICS))
    everything = call(networks, sample, StainTarget(repeated, None, NO_STATISTICS))
    unweighted = call(networks, sample, StainTarget(tokens, None, NO_STATISTICS))
    assert torch.allclose(summarised, everything, atol=1e-5)
    assert not torch.allclose(unweighted, everything, atol=1e-4)


def test_a_place_depends_on_its_surroundings_only(networks):
    torch.manual_seed(4)
    sample, control = torch.randn(1, 6, 64, 64), torch.randn(1, 12, 64, 64)
    target = StainTarget(torch.randn(1, 4, 6), None, NO_STATISTICS)
    whole = call(networks, sample, target, control=control)
    part = call(networks, sample[..., :48, :48], target, control=control[..., :48, :48])
    assert torch.allclose(whole[..., :4, :4], part[..., :4, :4], atol=1e-5)


def test_a_weaker_input_gives_another_answer_not_the_same(networks):
    torch.manual_seed(5)
    sample = torch.randn(1, 6, 8, 8)
    target = StainTarget(torch.randn(1, 4, 6), None, NO_STATISTICS)
    strong, weak = (call(networks, s * sample, target).std() for s in (3.0, 0.3))
    assert float(strong / weak) > 1.5


def test_the_order_of_tokens_does_not_matter(networks):
    torch.manual_seed(3)
    sample, tokens = torch.randn(1, 6, 8, 8), torch.randn(1, 5, 6)
    first = call(networks, sample, StainTarget(tokens, None, NO_STATISTICS))
    second = call(networks, sample, StainTarget(tokens.flip(1), None, NO_STATISTICS))
    assert torch.allclose(first, second, atol=1e-5)
