"""Fine-tuning through the decoder: what its loss sees, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from stainfuser.diffusion.assemble import compact_pipeline
from stainfuser.diffusion.denoiser_training import TrainingData, train_denoiser
from stainfuser.diffusion.examples import ExampleBatch, StoredExamples
from stainfuser.diffusion.objectives import TrainingExample, objective_named
from stainfuser.diffusion.optimization import OptimizationParameters
from stainfuser.diffusion.pixel_phase import gradient_agreement, image_losses
from stainfuser.diffusion.training import reproducible
from stainfuser.io.example_store import ExampleStore
from stainfuser.nn.stain_statistics import FEATURES


def picture(count: int = 2) -> torch.Tensor:
    coarse = np.random.default_rng(0).uniform(90, 220, (count, 8, 8, 3))
    return torch.from_numpy(coarse.repeat(4, axis=1).repeat(4, axis=2)).float()


def optimization(phase: str, steps: int, learning_rate: float = 3e-3) -> OptimizationParameters:
    return OptimizationParameters(phase, steps, learning_rate, 2, 0.0, 0.9, 1.0, 1, 10)


def test_the_truth_costs_least():
    truth = picture()
    exact = image_losses(truth, truth, truth)
    assert exact["pixel"] == exact["gradient"] == exact["structure"] == 0
    assert exact["colour"] == pytest.approx(0.5, abs=1e-3)
    redder = truth + torch.tensor([8.0, 0.0, 0.0])
    assert image_losses(redder, truth, truth)["colour"] > exact["colour"] + 0.5


def test_lost_and_invented_structure_cost():
    source = picture()
    invented = picture().flip(1)
    assert image_losses(invented, source, source)["structure"] > 5
    assert image_losses(invented, source, source)["gradient"] > 1
    assert gradient_agreement(0.7 * source + 10, source) == pytest.approx(1.0, abs=1e-4)
    flat = torch.full_like(source, 200.0)
    assert gradient_agreement(source, flat).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", ["bridge", "v_zero_snr"])
def test_one_exact_step_gives_the_clean_latents(name):
    objective = objective_named(name)
    scheduler = objective.make_scheduler()
    clean, start, noise = torch.randn(3, 2, 4, 2, 2).unbind(0)
    example = objective.example(clean, start, noise, torch.full((2,), 0.9999), scheduler)
    found = objective.one_step(example, example.answer, scheduler)
    assert torch.allclose(found, clean, atol=1e-4)


def test_epsilon_has_no_single_step():
    example = TrainingExample(torch.zeros(1), torch.tensor([999]), torch.zeros(1))
    with pytest.raises(ValueError, match="one step"):
        objective_named("epsilon").one_step(example, torch.zeros(1), None)


@pytest.fixture
def pipeline():
    pipe = compact_pipeline(
        seed=1,
        objective="bridge",
        start="source",
        mpp=0.5,
        patch_size=16,
        context_tokens=4,
        latent_patch_px=4,
        latent_channels=48,
        channels=(8, 8),
        decoder_channels=8,
    )
    pipe.vae.set_principal_components(torch.rand(8, 3, 16, 16) * 2 - 1)
    return pipe


def batch(count: int) -> ExampleBatch:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 0.5 + 0.4
    source = coarse.repeat_interleave(6, 2).repeat_interleave(6, 3)
    return ExampleBatch(
        source,
        source,
        source * torch.tensor([0.9, 0.7, 0.8])[:, None, None],
        torch.randn(count, 4, 48, generator=generator),
        torch.zeros(count, 1, 4),
        torch.zeros(count, 2 * FEATURES),
    )


def store(folder, count: int = 12) -> ExampleStore:
    return ExampleStore.filled(folder / "x.h5", "key", count, lambda _: batch(count).to_arrays())


def examples(kept: ExampleStore, **changes) -> StoredExamples:
    options = dict(seed=1, batch_size=4, crop_px=16)
    return StoredExamples(kept, **{**options, **changes})


def test_latents_then_pixels_learn_and_the_best_is_kept(pipeline, tmp_path):
    with store(tmp_path) as kept, reproducible(threads=1):
        data = TrainingData(examples(kept), {"new tissue": examples(kept, augment=False)})
        phases = (optimization("diffusion", 30), optimization("finetune", 30, 1e-3))
        rows = train_denoiser(pipeline, data, phases, Accelerator(cpu=True), tmp_path, 1)
        again = train_denoiser(pipeline, data, phases, Accelerator(cpu=True), tmp_path, 1)
    assert again == rows
    for phase in ("diffusion", "finetune"):
        losses = [row[2] for row in rows if row[0] == phase]
        assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
        validation = [row[2] for row in rows if row[0] == f"{phase} validation new tissue"]
        assert len(validation) == 4 and validation[-1] < validation[0]


def test_examples_are_turned_alike_and_depend_on_the_step_alone(tmp_path):
    with store(tmp_path) as kept:
        drawn = [examples(kept).draw(step) for step in (0, 1, 0)]
    assert torch.equal(drawn[0].source, drawn[2].source)
    assert not torch.equal(drawn[0].source, drawn[1].source)
    assert drawn[0].source.shape == (4, 3, 16, 16)
    expected = drawn[0].source * torch.tensor([0.9, 0.7, 0.8])[:, None, None]
    assert torch.allclose(drawn[0].stylized, expected, atol=1 / 255)


def test_stored_latents_belong_to_their_pixels(tmp_path):
    whole = batch(6)
    latents = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 48, 6, 6)
    arrays = ExampleBatch(**{**vars(whole), "clean": latents, "first": latents}).to_arrays()
    with ExampleStore.filled(tmp_path / "x.h5", "key", 6, lambda _: arrays) as kept:
        drawn = examples(kept).draw(0)
    for image, latent in zip(drawn.source, drawn.clean, strict=True):
        own = whole.source[int(latent[0, 0, 0])]
        assert torch.allclose(image, own, atol=1 / 255)
