"""The pipeline: any size in, neighbours without influence, folders checked before use."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import stainfuser
from stainfuser.errors import ConfigError, InputError
from tiny_pipeline import untrained_pipeline

RNG = np.random.default_rng(0)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def tiny_pipeline(**changes):
    pipeline = untrained_pipeline(**{"start": "statistics", **changes})
    torch.manual_seed(0)
    torch.nn.init.normal_(pipeline.unet.conv_out.weight, std=0.05)
    return pipeline


def pictures(count: int, height: int, width: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def pipeline():
    return tiny_pipeline()


@pytest.fixture(scope="module")
def target():
    return pictures(1, 40, 56)[0]


@pytest.fixture
def folder(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 30), (64, 33)])
def test_every_size_comes_back_as_it_was(pipeline, target, size):
    result = pipeline(pictures(2, *size), target, output_type="np").images
    assert result.shape == (2, *size, 3)
    assert result.dtype == np.uint8


def test_output_types(pipeline, target):
    source = pictures(1, 16, 20)
    array = pipeline(source, target, output_type="np").images[0]
    (picture,) = pipeline(source, target, output_type="pil").images
    tensor = pipeline(source, target, output_type="pt").images
    latents = pipeline(source, target, output_type="latent").images
    assert np.array_equal(np.asarray(picture), array)
    assert np.array_equal((tensor[0].permute(1, 2, 0) * 255).round().byte().numpy(), array)
    assert latents.shape == (1, 6, 4, 6)


def test_a_list_of_sizes_gives_a_list(pipeline, target):
    images = [pictures(1, 16, 16)[0], pictures(1, 24, 16)[0]]
    result = pipeline(images, target, output_type="np").images
    assert [image.shape for image in result] == [(16, 16, 3), (24, 16, 3)]


@pytest.mark.parametrize("objective", ["bridge", "epsilon", "v_zero_snr"])
def test_neighbours_and_batch_size_do_not_matter(target, objective):
    pipeline = tiny_pipeline(objective=objective)
    source = pictures(3, 24, 24)
    together = pipeline(source, target, 2, output_type="np", batch_size=3).images
    for index in range(3):
        alone = pipeline(source[index], target, 2, output_type="np", batch_size=1).images[0]
        assert np.array_equal(alone, together[index])


def test_seeds(target):
    pipeline = tiny_pipeline(objective="epsilon")
    source = pictures(1, 16, 16)

    def latents(generator):
        return pipeline(source, target, 2, generator=generator, output_type="latent").images

    assert torch.equal(latents(None), latents(0))
    assert not torch.equal(latents(0), latents(1))
    seeded = torch.Generator().manual_seed(5)
    first, second = latents(seeded), latents(seeded)
    assert not torch.equal(first, second)
    assert torch.equal(first, latents(torch.Generator().manual_seed(5)))


def test_an_encoded_target_is_the_same_target(pipeline, target):
    source = pictures(2, 16, 16)
    encoded = pipeline.encode_target(target)
    first = pipeline(source, target, output_type="np").images
    assert np.array_equal(first, pipeline(source, encoded, output_type="np").images)


def test_one_target_per_source(pipeline):
    source, targets = pictures(2, 16, 16), pictures(2, 32, 32)
    both = pipeline(source, targets, output_type="np").images
    second = pipeline(source[1], targets[1], output_type="np").images[0]
    assert np.array_equal(both[1], second)
    with pytest.raises(InputError, match="2 for 3 sources"):
        pipeline(pictures(3, 16, 16), targets)


def test_a_large_target_is_seen_as_a_whole(pipeline):
    wide = np.zeros((40, 1200, 3), np.uint8)
    wide[:, 600:] = (200, 120, 180)
    encoded = pipeline.encode_target(wide)
    assert encoded.tokens.shape == (1, 8, 6)
    assert 0.3 < float(encoded.statistics.mean[0, 0]) < 6.0
    assert not torch.allclose(
        encoded.statistics.mean, pipeline.encode_target(wide[:, :600]).statistics.mean
    )


def test_slide_statistics_give_one_colour_change(pipeline, target):
    tiles = pictures(3, 32, 32) // np.array([1, 2, 3], np.uint8)[:, None, None, None]
    slide = pipeline.fit_slide(list(tiles), target)
    alone = pipeline(tiles[0], target, output_type="np", slide=slide).images[0]
    every = pipeline(tiles, target, output_type="np", slide=slide).images
    assert np.array_equal(alone, every[0])
    assert not np.array_equal(alone, pipeline(tiles[0], target, output_type="np").images[0])


def test_latents_replace_the_start(pipeline, target):
    source = pictures(1, 16, 16)
    start = torch.zeros(1, 6, 4, 4)
    result = pipeline(source, target, latents=start, output_type="latent").images
    assert not torch.equal(result, pipeline(source, target, output_type="latent").images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": 2.5}, "num_inference_steps"),
        ({"batch_size": -1}, "batch_size"),
        ({"output_type": "jpg"}, "pil, np, pt, latent"),
    ],
)
def test_arguments_are_checked_first(pipeline, target, options, says):
    with pytest.raises(InputError, match=says):
        pipeline(pictures(1, 16, 16), target, **options)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ConfigError, match="'flow' is unknown"):
        tiny_pipeline(objective="flow")


def test_the_same_seed_makes_the_same_weights():
    first, second = tiny_pipeline(), tiny_pipeline()
    for key, tensor in first.unet.state_dict().items():
        assert torch.equal(tensor, second.unet.state_dict()[key])


def test_saved_and_loaded_it_answers_the_same(pipeline, target, folder):
    loaded = stainfuser.StainFuserPipeline.from_pretrained(folder)
    source = pictures(2, 20, 20)
    first = pipeline(source, target, output_type="np").images
    assert np.array_equal(first, loaded(source, target, output_type="np").images)
    assert (loaded.config.mpp, loaded.config.objective) == (0.5, "bridge")


def refused(folder, says):
    with pytest.raises(InputError, match=says) as caught:
        stainfuser.StainFuserPipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "nothing", "no such model folder")


def test_a_folder_of_something_else_is_refused(folder):
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    refused(folder, "holds a StableDiffusionPipeline")
    (folder / "model_index.json").unlink()
    refused(folder, "model_index.json is missing")


def test_a_missing_weight_file_is_refused(folder):
    (folder / "unet" / WEIGHTS).unlink()
    refused(folder, "weight file is missing")


def test_truncated_weights_are_refused(folder):
    path = folder / "controlnet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, "damaged")


def test_weights_of_another_architecture_are_refused(folder):
    path = folder / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "block_out_channels": [16, 24]}))
    refused(folder, "another architecture")


def test_a_folder_cannot_have_other_code_imported(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": ["antigravity", "fly"]}))
    refused(folder, "asks for code of antigravity")
    assert "antigravity" not in sys.modules


def test_a_damaged_configuration_is_refused(folder):
    (folder / "vae" / "config.json").write_text("{")
    refused(folder, "cannot be read as JSON")


def test_weights_that_are_not_finite_are_refused(folder):
    path = folder / "vae" / WEIGHTS
    tensors = load_file(path)
    tensors["synthesis.bias"][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    refused(folder, "synthesis.bias is not finite")
