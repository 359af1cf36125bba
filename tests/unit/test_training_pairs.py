"""Held-out pairs, batches that depend on seed and step alone, and exact recoloured pairs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stainfuser.diffusion.augmentation import draw_stain_maps, identity_maps, is_realistic
from stainfuser.diffusion.pair_sampler import PairSampler, patch_mosaic
from stainfuser.diffusion.pairs import PARTS, PairImages, split_pairs, spread_rows
from stainfuser.errors import InputError

RNG = np.random.default_rng(0)


class Reader:
    def __init__(self, source, target, stylized):
        self.source, self.target = source.__getitem__, target.__getitem__
        self.stylized = lambda t, s: stylized[t, s]
        self.image_px = source.shape[1]


def images(sources: int = 6, targets: int = 4, side: int = 32) -> PairImages:
    source = RNG.integers(60, 256, (sources, side, side, 3), dtype=np.uint8)
    target = RNG.integers(60, 256, (targets, side, side, 3), dtype=np.uint8)
    stylized = np.broadcast_to(255 - source // 2, (targets, *source.shape))
    return PairImages(Reader(source, target, stylized))


def sampler(pairs: PairImages, **changes) -> PairSampler:
    rows = np.argwhere(np.ones((4, 6), bool))
    options = dict(seed=1, batch_size=3, crop_px=16, mosaic_px=4)
    unchanged = dict(half_resolution=0.0, probability=0.0, strength=1.0)
    return PairSampler(pairs, rows, **{**options, **unchanged, **changes})


def test_every_pair_is_in_one_part_and_held_out_ones_are_new():
    planned = RNG.random((10, 40)) < 0.5
    split = split_pairs(planned, 1, 0.2, 0.2)
    assert sum(len(split[part]) for part in PARTS) == planned.sum()
    seen_targets, seen_sources = (set(split["train"][:, i]) for i in (0, 1))
    assert not seen_sources & set(split["held_out_sources"][:, 1])
    assert not seen_targets & set(split["held_out_targets"][:, 0])
    assert not seen_targets & set(split["held_out_both"][:, 0])
    assert not seen_sources & set(split["held_out_both"][:, 1])
    assert len(split["held_out_both"])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2)])
def test_few_pairs_leave_something_to_train_on(shape):
    split = split_pairs(np.ones(shape, bool), 1, 0.2, 0.2)
    assert len(split["train"]) > 0


def test_no_pair_at_all_is_refused():
    with pytest.raises(InputError, match="no pair is planned"):
        split_pairs(np.zeros((3, 3), bool), 1, 0.2, 0.2)


def test_batches_depend_on_seed_and_step_alone():
    pairs = images()
    first, again = sampler(pairs).draw(7), sampler(pairs).draw(7)
    assert torch.equal(first.source, again.source)
    assert torch.equal(first.target_stain, again.target_stain)
    assert not torch.equal(first.source, sampler(pairs).draw(8).source)
    assert not torch.equal(first.source, sampler(pairs).draw(7, stream=1).source)
    assert not torch.equal(first.source, sampler(pairs, seed=2).draw(7).source)


def test_source_and_stylised_crops_lie_at_one_place():
    batch = sampler(images()).draw(3)
    expected = 255 - (batch.source * 255).round().to(torch.uint8) // 2
    assert torch.equal((batch.stylized * 255).round().to(torch.uint8), expected)


def test_one_map_keeps_target_and_stylised_consistent():
    rgb = torch.rand(2, 3, 8, 8) * 0.6 + 0.3
    maps = draw_stain_maps(np.random.default_rng(1), 2, probability=1.0, strength=1.0)
    assert torch.allclose(maps(rgb)[..., 2:5, :], maps(rgb[..., 2:5, :]))
    assert not torch.allclose(maps(rgb), rgb, atol=0.02)


def test_the_identity_changes_nothing():
    rgb = torch.rand(2, 3, 8, 8)
    assert torch.allclose(identity_maps(2)(rgb), rgb, atol=2e-4)
    none = draw_stain_maps(np.random.default_rng(1), 2, probability=0.0, strength=1.0)
    assert torch.allclose(none(rgb), rgb, atol=2e-4)


def test_black_white_and_flat_images_are_not_realistic():
    assert not is_realistic(torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)])).any()
    assert is_realistic(torch.rand(1, 3, 8, 8)).all()


def test_a_mosaic_keeps_whole_patches():
    image = torch.arange(64.0).expand(1, 3, 64, 64)
    kept = [16 * patch + px for patch in range(4) for px in range(4)]
    assert patch_mosaic(image, 4)[0, 0, 0].tolist() == kept


def test_spread_rows_reach_both_ends():
    rows = np.arange(20).reshape(10, 2)
    assert spread_rows(rows, 3)[[0, -1]].tolist() == [[0, 1], [18, 19]]
    assert len(spread_rows(rows, 50)) == 10


def test_memory_is_bounded():
    source, target = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((1, 8, 8, 3), np.uint8)
    pairs = PairImages(Reader(source, target, source[None]), memory_bytes=200)
    for _ in range(3):
        pairs.sources(np.array([[0, 0], [0, 1]]))
    assert len(pairs._kept) == 1
