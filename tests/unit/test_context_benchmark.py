"""Fewer tokens against all of them: rows, and errors that shrink with the number."""

from __future__ import annotations

import numpy as np
import torch

from stainfuser.diffusion.assemble import compact_pipeline
from stainfuser.diffusion.context_benchmark import compare_contexts, count_sd21_operations
from stainfuser.diffusion.training import reproducible


def test_more_tokens_are_nearer_to_all_of_them():
    pipe = compact_pipeline(
        seed=1,
        objective="bridge",
        start="source",
        mpp=0.5,
        patch_size=32,
        context_tokens=4,
        latent_patch_px=4,
        latent_channels=48,
        channels=(8, 8),
        decoder_channels=8,
    )
    pipe.set_progress_bar_config(disable=True)
    with torch.no_grad():
        for network in (pipe.unet, pipe.controlnet):
            for index, weight in enumerate(network.parameters()):
                # An untrained model answers nothing, whatever the tokens are.
                weight += 0.1 * torch.randn(
                    weight.shape, generator=torch.Generator().manual_seed(index)
                )
    rng = np.random.default_rng(0)
    images = [rng.integers(90, 230, (36, 32, 3)).astype(np.uint8) for _ in range(4)]
    with reproducible(threads=1):
        rows = compare_contexts(pipe, images[:2], images[2:], (40, 2))
    assert [(row["context"], row["tokens"]) for row in rows] == [("all", 72), ("40", 40), ("2", 2)]
    assert rows[0]["relative_error"] == rows[0]["ciede2000"] == 0.0
    assert 0 < rows[1]["relative_error"] < rows[2]["relative_error"]
    assert all(row["seconds"] > 0 for row in rows)


def test_the_published_networks_cost_less_with_fewer_tokens_and_with_a_memory():
    every, few = count_sd21_operations((None, 64))
    assert every["tokens"] == 4096
    # A multiplication and an addition are two operations.
    assert round(every["gflop"]) == 1649 and round(few["gflop"]) == 1086
    assert every["gflop_remembered"] < 0.85 * every["gflop"]
    assert few["gflop_remembered"] < few["gflop"]
