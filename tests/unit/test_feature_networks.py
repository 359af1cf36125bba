from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stainfuser.errors import ConfigError, InputError
from stainfuser.nn.feature_networks import ARCHITECTURES, Conv, load_feature_network

KERAS = "features/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
COMPRESSED = "features/compressed_SqueezeNet.net"


@pytest.fixture(scope="module")
def vgg19_state() -> dict[str, torch.Tensor]:
    """Return random weights in the shapes of torchvision's VGG19, as far as they are used."""
    generator = torch.Generator().manual_seed(1)
    state = {}
    for layer in ARCHITECTURES["vgg19"].layers:
        if isinstance(layer, Conv):
            shape = (layer.outputs, layer.inputs, 3, 3)
            scale = (2 / (9 * layer.inputs)) ** 0.5
            state[f"{layer.key}.weight"] = scale * torch.randn(shape, generator=generator)
            state[f"{layer.key}.bias"] = torch.zeros(layer.outputs)
    state["classifier.0.weight"] = torch.zeros(4, 4)
    return state


def test_vgg19_has_the_layers_of_torchvision():
    keys = [c.key for c in ARCHITECTURES["vgg19"].layers if isinstance(c, Conv)]
    numbers = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28]
    assert keys == [f"features.{number}" for number in numbers]


def test_vgg19_is_read_from_pth_and_safetensors(vgg19_state, tmp_path):
    torch.save(vgg19_state, tmp_path / "vgg19.pth")
    save_file(vgg19_state, tmp_path / "vgg19.safetensors")
    image = 255 * torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    found = [
        load_feature_network("vgg19", tmp_path / f"vgg19.{suffix}")(image)
        for suffix in ("pth", "safetensors")
    ]
    for name in ("conv1_1", "conv4_2", "conv5_1"):
        assert torch.equal(found[0][name], found[1][name])
        assert found[0][name].std() > 0
    # The first layer by hand: ImageNet's mean and deviation of RGB in [0, 1], then ReLU.
    normal = (image / 255 - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(1, 3, 1, 1)
    expected = torch.nn.functional.conv2d(normal, vgg19_state["features.0.weight"]).relu()
    inner = found[0]["conv1_1"][..., 1:-1, 1:-1]
    torch.testing.assert_close(inner, expected, atol=1e-4, rtol=1e-4)


def test_shapes_of_features(vgg19_state, tmp_path):
    save_file(vgg19_state, tmp_path / "v.safetensors")
    features = load_feature_network("vgg19", tmp_path / "v.safetensors")(torch.zeros(2, 3, 64, 48))
    assert features["conv1_1"].shape == (2, 64, 64, 48)
    assert features["conv4_2"].shape == (2, 512, 8, 6)


@pytest.mark.parametrize("file", [KERAS, COMPRESSED])
def test_published_squeezenets_tell_tissue_from_its_mirror_image_less_than_from_noise(
    shared_data: Path, file: str
):
    from stainfuser.io.images import read_image

    network = load_feature_network("squeezenet", shared_data / file)
    tile = read_image(shared_data / "images/veta/example1.tif")[:128, :128]
    noise = np.random.default_rng(1).integers(0, 256, tile.shape)
    images = np.stack([tile, tile[:, ::-1], noise]).transpose(0, 3, 1, 2)
    deep = network(torch.from_numpy(images).float())["fire5"].mean(dim=(2, 3))
    deep = torch.nn.functional.normalize(deep)
    assert deep[0] @ deep[1] > 0.98
    assert deep[0] @ deep[2] < 0.9


def test_squeezenets_of_both_files_are_the_published_sizes(shared_data: Path):
    outputs = [
        load_feature_network("squeezenet", shared_data / file)(torch.zeros(1, 3, 64, 64))
        for file in (KERAS, COMPRESSED)
    ]
    assert [found["conv1"].shape[1] for found in outputs] == [64, 96]
    assert [found["fire4"].shape[1] for found in outputs] == [256, 256]


def test_random_weights_only_when_asked_for():
    with pytest.raises(InputError, match=r"needs the weights of vgg19 and no file is given"):
        load_feature_network("vgg19", None)
    first, second, third = (
        load_feature_network("squeezenet", None, allow_random_weights=True, seed=seed)
        for seed in (1, 1, 2)
    )
    image = torch.full((1, 3, 32, 32), 100.0)
    assert torch.equal(first(image)["fire4"], second(image)["fire4"])
    assert not torch.equal(first(image)["fire4"], third(image)["fire4"])


def test_an_unknown_network_is_a_configuration_error():
    with pytest.raises(ConfigError, match="use vgg19 or squeezenet"):
        load_feature_network("resnet", None)


class Harmful:
    def __reduce__(self):
        return (os.system, ("true",))


def write_bad_file(kind: str, folder: Path, state: dict[str, torch.Tensor]) -> Path:
    path = folder / "vgg19.pth"
    if kind == "code":
        torch.save({"features.0.weight": Harmful()}, path)
    elif kind == "code_in_a_bare_pickle":
        path.write_bytes(pickle.dumps(Harmful()))
    elif kind == "truncated":
        torch.save(state, path)
        os.truncate(path, path.stat().st_size // 2)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<!DOCTYPE html> 404")
    elif kind == "not_a_state":
        torch.save([1, 2], path)
    elif kind == "truncated_safetensors":
        path = folder / "vgg19.safetensors"
        save_file(state, path)
        os.truncate(path, 1000)
    elif kind == "other_network":
        torch.save({"layer1.weight": torch.zeros(3)}, path)
    elif kind == "other_shape":
        torch.save({**state, "features.5.weight": torch.zeros(64, 64, 5, 5)}, path)
    elif kind == "other_suffix":
        path = folder / "vgg19.onnx"
        path.write_bytes(b"x")
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("code", "more than tensors"),
        ("code_in_a_bare_pickle", "more than tensors|not an intact file"),
        ("truncated", "damaged"),
        ("empty", "damaged|not an intact"),
        ("text", "not an intact"),
        ("not_a_state", "no state dict"),
        ("truncated_safetensors", "damaged"),
        ("other_network", r"not the weights of vgg19: features\.0\.weight is missing"),
        ("other_shape", r"features\.5\.weight has the shape \(64, 64, 5, 5\)"),
        ("other_suffix", r"read from \.pth, \.pt, \.safetensors"),
        ("missing", "no such file"),
    ],
)
def test_bad_vgg19_files(kind: str, sentence: str, tmp_path: Path, vgg19_state):
    path = write_bad_file(kind, tmp_path, vgg19_state)
    with pytest.raises(InputError, match=sentence) as caught:
        load_feature_network("vgg19", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", [KERAS, COMPRESSED])
def test_truncated_squeezenet_files(file: str, shared_data: Path, tmp_path: Path):
    path = tmp_path / Path(file).name
    path.write_bytes((shared_data / file).read_bytes()[:200_000])
    with pytest.raises(InputError, match="damaged"):
        load_feature_network("squeezenet", path)
