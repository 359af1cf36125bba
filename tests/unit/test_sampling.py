"""What is constant between the steps of an image is computed once, to the same bits."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention

from stainfuser.diffusion.assemble import compact_pipeline
from stainfuser.diffusion.context import StainTarget
from stainfuser.diffusion.sampling import predict, remembered_context
from stainfuser.nn.stain_statistics import stain_statistics


def test_remembered_contexts_change_nothing_but_the_work():
    pipe = compact_pipeline(
        seed=1,
        objective="v_zero_snr",
        start="source",
        mpp=0.5,
        patch_size=32,
        context_tokens=4,
        latent_patch_px=4,
        latent_channels=8,
        channels=(8, 16),
        decoder_channels=8,
    )
    torch.manual_seed(0)
    for network in (pipe.unet, pipe.controlnet):
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    statistics = stain_statistics(torch.rand(1, 3, 32, 32))
    target = StainTarget(torch.randn(1, 4, 8), torch.zeros(1, 1, 4), statistics)
    control, labels = torch.rand(1, 48, 8, 8), torch.randn(1, 122)
    samples = torch.randn(3, 1, 8, 8, 8)
    calls = []
    keys = [
        module.to_k
        for network in (pipe.unet, pipe.controlnet)
        for module in network.modules()
        if isinstance(module, Attention) and module.is_cross_attention
    ]
    for key in keys:
        key.register_forward_hook(lambda *_: calls.append(1))

    def steps():
        networks = (pipe.unet, pipe.controlnet)
        with torch.no_grad():
            return [
                predict(*networks, x, torch.tensor([time]), control, target, labels)
                for x, time in zip(samples, (999, 500, 1), strict=True)
            ]

    plain = steps()
    assert len(calls) == 3 * len(keys)
    calls.clear()
    with remembered_context(pipe.unet, pipe.controlnet):
        remembered = steps()
    assert len(calls) == len(keys)
    assert all(torch.equal(a, b) for a, b in zip(plain, remembered, strict=True))
    calls.clear()
    steps()
    assert len(calls) == 3 * len(keys)
