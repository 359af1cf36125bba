"""The published checkpoint layout and inference, to 1e-5 in float32."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from stainfuser.diffusion.pipeline import StainFuserPipeline

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(shared_fixtures):
    found = shared_fixtures / "reference_parity"
    if not found.is_dir():
        pytest.skip("no reference_parity among the shared fixtures")
    return found


@pytest.fixture(scope="module")
def expected(folder):
    return load_file(folder / "expected.safetensors")


@pytest.fixture(scope="module")
def pipeline(folder):
    return StainFuserPipeline.from_single_file(
        folder / "checkpoint.safetensors", folder / "configs.json"
    )


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())


def test_target_tokens(pipeline, expected):
    tokens = pipeline.encode_target(expected["target"]).tokens
    reference = expected["target_latents"].flatten(2).transpose(1, 2)
    assert tokens.shape == (2, 64, 4)
    assert difference(tokens, reference) < TOLERANCE


@pytest.mark.parametrize("steps", [5, 20])
def test_latents_and_decoded_images(pipeline, expected, steps):
    latents = pipeline(
        expected["source"],
        expected["target"],
        num_inference_steps=steps,
        latents=expected["noise"],
        output_type="latent",
    ).images
    assert difference(latents, expected[f"latents_{steps}"]) < TOLERANCE
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    assert difference(decoded, expected[f"decoded_{steps}"]) < TOLERANCE


def test_images_are_the_decoded_latents(pipeline, expected):
    images = pipeline(
        expected["source"], expected["target"], 5, latents=expected["noise"], output_type="pt"
    ).images
    reference = (expected["decoded_5"] / 2 + 0.5).clamp(0, 1)
    assert difference(images, reference) < TOLERANCE


def test_export_gives_the_same_file_tensor_for_tensor(pipeline, folder, tmp_path):
    pipeline.save_single_file(tmp_path / "again.safetensors")
    before = load_file(folder / "checkpoint.safetensors")
    after = load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_pth_file_and_a_mapping_give_the_same_model(pipeline, folder, expected, tmp_path):
    state = load_file(folder / "checkpoint.safetensors")
    torch.save({"state_dict": state}, tmp_path / "checkpoint.pth")
    config = json.loads((folder / "configs.json").read_text())
    other = StainFuserPipeline.from_single_file(tmp_path / "checkpoint.pth", config)
    first, second = (
        one(expected["source"], expected["target"], 2, output_type="latent").images
        for one in (pipeline, other)
    )
    assert torch.equal(first, second)


def test_it_can_be_saved_as_a_folder(pipeline, expected, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    loaded = StainFuserPipeline.from_pretrained(tmp_path / "model")
    assert loaded.config.target_range == "zero_one"
    first, second = (
        one(expected["source"], expected["target"], 2, output_type="latent").images
        for one in (pipeline, loaded)
    )
    assert difference(first, second) < TOLERANCE
