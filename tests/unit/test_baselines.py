"""Baselines: what they learn, and that what is loaded is what was trained."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from stainfuser.diffusion.baseline_networks import BaselineParams, build_network, perturbed
from stainfuser.diffusion.baselines import (
    BASELINES,
    UnpairedTiles,
    as_function,
    load_baseline,
    save_baseline,
    unpaired_loss,
)
from stainfuser.errors import InputError
from stainfuser.nn.stain_denoiser import noised, step_to, structure_of
from stainfuser.stain.metrics import ciede2000, gradient_correlation
from two_tone_tissue import DARK_PINK, ORANGE, PALE_BLUE, two_tone

STEPS = {"cagan_like": 70, "cyclegan_like": 110, "staindiff_like": 60}


def params(kind: str, channels: int = 4) -> BaselineParams:
    return BaselineParams(kind, channels, blocks=1, sampling_steps=3, ensemble=2)


def tiles() -> UnpairedTiles:
    sources = [two_tone(n, 48, stain) for n, stain in enumerate((PALE_BLUE, ORANGE) * 3)]
    return UnpairedTiles(np.stack(sources), two_tone(50, 128, DARK_PINK), crop_px=32)


@pytest.mark.parametrize("kind", BASELINES)
def test_a_baseline_moves_unseen_tissue_to_the_target_and_keeps_its_structure(kind):
    network = build_network(params(kind, channels=8), seed=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.004, betas=(0.5, 0.99))
    loss_of = unpaired_loss(tiles(), batch_size=4, seed=1)
    for step in range(STEPS[kind]):
        optimizer.zero_grad()
        loss_of(network, step, 0).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
    for stain in (PALE_BLUE, ORANGE):
        source, truth = (two_tone(90, 64, s) for s in (stain, DARK_PINK))
        result = as_function(network)(source[None])[0]
        assert ciede2000(result, truth) < 0.7 * ciede2000(source, truth)
        assert gradient_correlation(truth, result) > 0.7


@pytest.mark.parametrize("kind", BASELINES)
def test_any_size_and_no_influence_of_the_batch(kind):
    normalize = as_function(build_network(params(kind), seed=3))
    first, second = two_tone(1, 37, PALE_BLUE)[:, :50], two_tone(2, 37, ORANGE)[:, :50]
    both = normalize(np.stack([first, second]))
    assert both.shape == (2, 37, 37, 3) and both.dtype == np.uint8
    assert np.array_equal(both[1], normalize(second[None])[0])


@pytest.mark.parametrize("kind", BASELINES)
def test_saved_and_loaded_a_baseline_makes_the_same_pixels(kind, tmp_path):
    network = build_network(params(kind), seed=4)
    save_baseline(tmp_path, network, params(kind), {"rule": "train_baseline"})
    image = two_tone(5, 32, PALE_BLUE)[None]
    assert np.array_equal(load_baseline(tmp_path)(image), as_function(network)(image))


def test_generators_and_discriminators_have_no_gradients_for_each_other():
    network = build_network(params("cyclegan_like"), seed=1)
    source, target = tiles().draw(2, seed=1, step=0)
    from stainfuser.diffusion.baseline_networks import _fooled, _mistaken

    made = network.generator(source)[0]
    _fooled(network.judge, made).backward()
    assert all(weight.grad is None for weight in network.judge.parameters())
    assert any(weight.grad is not None for weight in network.generator.parameters())
    network.zero_grad(set_to_none=True)
    _mistaken(network.judge, target, made).backward()
    assert all(weight.grad is None for weight in network.generator.parameters())


def test_structure_hardly_depends_on_the_stain():
    first, second = (
        torch.from_numpy(two_tone(7, 64, stain)).permute(2, 0, 1)[None].float() / 127.5 - 1
        for stain in (PALE_BLUE, DARK_PINK)
    )
    apart = (structure_of(first) - structure_of(second)).abs().mean()
    assert apart < 0.35 * (first - second).abs().mean() / first.std()


def test_a_denoiser_that_knows_the_image_ends_in_it():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 8, 8, generator=generator)
    noise = torch.randn(1, 3, 8, 8, generator=generator)
    now, then = torch.ones(1), torch.full((1,), 0.5)
    half = step_to(noised(image, noise, now), image, now, then)
    assert torch.allclose(half, noised(image, noise, then), atol=1e-5)
    assert torch.allclose(step_to(half, image, then, torch.zeros(1)), image, atol=1e-5)


def test_perturbed_images_are_drawn_from_the_seed_alone():
    images = tiles().draw(3, seed=2, step=5)[0]
    first, second, other = (perturbed(images, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert (first - other).abs().mean() > 0.02


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "does not hold"),
        (lambda folder: _change(folder, channels=8), "does not hold"),
        (lambda folder: _change(folder, kind="unheard_of"), "does not hold"),
    ],
)
def test_a_damaged_folder_is_one_sentence(tmp_path, spoil, said):
    network = build_network(params("cagan_like"), seed=1)
    save_baseline(tmp_path, network, params("cagan_like"), {})
    spoil(tmp_path)
    with pytest.raises(InputError, match=said):
        load_baseline(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    network = build_network(params("cagan_like"), seed=1)
    with torch.no_grad():
        next(network.generator.parameters()).fill_(float("nan"))
    save_baseline(tmp_path, network, params("cagan_like"), {})
    with pytest.raises(InputError, match="not finite"):
        load_baseline(tmp_path)


def _change(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
