"""Target tokens and their summary by k-means."""

from __future__ import annotations

import torch

from stainfuser.diffusion.context import SAMPLE_TOKENS, flatten_tokens, reduce_tokens


def test_distinct_colours_are_found_with_their_counts():
    colours = torch.tensor([[0.0, 0.0], [5.0, 1.0], [9.0, -3.0]])
    counts = [7, 20, 5]
    tokens = torch.cat([colours[i].repeat(n, 1) for i, n in enumerate(counts)])[None]
    centres, bias = reduce_tokens(tokens, 3)
    order = centres[0, :, 0].argsort()
    assert torch.allclose(centres[0][order], colours)
    assert torch.allclose(bias[0, 0][order].exp(), torch.tensor(counts).float())


def test_the_summary_is_reproducible_and_blind_to_order():
    torch.manual_seed(0)
    tokens = torch.randn(2, 300, 5)
    centres, bias = reduce_tokens(tokens, 16)
    again, _ = reduce_tokens(tokens, 16)
    assert torch.equal(centres, again)
    shuffled, _ = reduce_tokens(tokens[:, torch.randperm(300)], 16)
    assert torch.allclose(centres, shuffled, atol=1e-4)
    assert torch.allclose(bias.exp().sum(-1), torch.full((2, 1), 300.0))


def test_images_of_a_batch_do_not_touch():
    torch.manual_seed(0)
    tokens = torch.randn(3, 200, 4)
    together, _ = reduce_tokens(tokens, 8)
    alone, _ = reduce_tokens(tokens[1:2], 8)
    assert torch.allclose(together[1], alone[0], atol=1e-6)


def test_a_blank_target_gives_one_live_token():
    centres, bias = reduce_tokens(torch.full((1, 50, 3), 0.5), 4)
    assert torch.isfinite(centres).all()
    assert int((bias > -100).sum()) == 1
    assert torch.allclose(bias.max().exp(), torch.tensor(50.0))


def test_large_targets_are_sampled_and_counted_in_full():
    torch.manual_seed(0)
    tokens = torch.randn(1, 3 * SAMPLE_TOKENS, 3)
    _, bias = reduce_tokens(tokens, 8)
    assert torch.allclose(bias.exp().sum(), torch.tensor(3.0 * SAMPLE_TOKENS), rtol=1e-4)


def test_fewer_tokens_than_centroids_are_all_kept():
    tokens = torch.arange(6.0).view(1, 3, 2)
    centres, _ = reduce_tokens(tokens, 64)
    assert centres.shape == (1, 3, 2)


def test_tokens_are_the_pixels_of_the_latents():
    latents = torch.arange(24.0).view(1, 2, 3, 4)
    assert torch.equal(flatten_tokens(latents)[0, 5], latents[0, :, 1, 1])
