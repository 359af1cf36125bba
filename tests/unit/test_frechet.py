"""Fréchet distances: torchmetrics' number, named for its features; weights from a user's file."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from scipy import linalg

from painted_tiles import paint_tile
from stainfuser.errors import InputError
from stainfuser.nn.frechet import StainFeatures, frechet_distance, frechet_features
from stainfuser.nn.inception import InceptionFeatures, load_inception


@pytest.fixture(scope="module")
def tiles() -> dict[str, np.ndarray]:
    looks = ("violet", "blue")
    found = {look: np.stack([paint_tile(seed, look) for seed in range(30)]) for look in looks}
    return found | {
        "other tissue": np.stack([paint_tile(seed, "violet") for seed in range(50, 80)])
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights in the published file's format: the network's own names and a classifier."""
    torch.manual_seed(0)
    state = InceptionFeatures().state_dict()
    state |= {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(state, path)
    return path


def test_the_distance_is_the_one_of_the_definition(tiles):
    features = frechet_features()
    found = frechet_distance(tiles["violet"], tiles["blue"], features)
    first, second = (
        features.network(torch.from_numpy(tiles[look]).permute(0, 3, 1, 2)).double().numpy()
        for look in ("violet", "blue")
    )
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    means = np.square(first.mean(0) - second.mean(0)).sum()
    expected = means + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert features.name == "FD-stain"
    assert found == pytest.approx(expected, rel=1e-3)


def test_stain_moves_it_and_tissue_hardly_does(tiles):
    features = frechet_features()
    same = frechet_distance(tiles["violet"], tiles["other tissue"], features)
    other = frechet_distance(tiles["violet"], tiles["blue"], features)
    assert frechet_distance(tiles["violet"], tiles["violet"], features) < 1e-4
    assert other > 10 * same


def test_features_by_hand():
    """Densities 1 and 3 in a chequerboard of 2 px: mean 2, deviation 1, detail at one scale."""
    board = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((2, 2))) * 2 + 1
    rgb = torch.from_numpy(np.repeat(256 * np.exp(-board) - 1, 3).reshape(1, 32, 32, 3))
    found = StainFeatures()(rgb.permute(0, 3, 1, 2))[0]
    assert found[:3].tolist() == pytest.approx([2.0] * 3, abs=1e-5)
    assert found[3:6].tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert found[6:9].tolist() == pytest.approx([1.0] * 3, abs=1e-5)
    assert found[9:].tolist() == pytest.approx([0.0] * 3 + [1.0] * 3 + [0.0] * 6, abs=1e-5)


def test_a_set_of_one_tile_has_no_distance(tiles):
    assert np.isnan(frechet_distance(tiles["violet"][:1], tiles["blue"], frechet_features()))


def test_unknown_inception_weights_are_never_called_fid(tiles, weights):
    features = frechet_features(weights)
    assert features.name == "FD-inception"
    assert features.network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 2048)


def test_weights_are_the_ones_of_the_file(weights):
    network = load_inception(weights)
    stored = torch.load(weights, weights_only=True)
    assert len([name for name in stored if name.endswith("conv.weight")]) == 94
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, stored[name])


def test_the_network_is_torch_fidelitys(weights):
    """Needs torch-fidelity, which is no dependency."""
    pytest.importorskip("torch_fidelity")
    from torchmetrics.image.fid import NoTrainInceptionV3

    other = NoTrainInceptionV3("x", ["2048"], str(weights))
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 96, 96)))
    expected = other._torch_fidelity_forward(images.to(torch.uint8))[0]
    assert torch.allclose(load_inception(weights)(images.to(torch.uint8)), expected, rtol=1e-4)


@pytest.mark.parametrize("fault", ["missing", "code", "another network", "suffix", "damaged"])
def test_bad_weights_are_refused_in_one_sentence(tmp_path, fault):
    path = tmp_path / ("x.bin" if fault == "suffix" else "x.pth")
    if fault == "code":
        path.write_bytes(pickle.dumps({"a": print}))
    elif fault == "another network":
        torch.save({"conv1.weight": torch.zeros(3)}, path)
    elif fault != "missing":
        path.write_bytes(b"no weights")
    with pytest.raises(InputError) as error:
        frechet_features(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
