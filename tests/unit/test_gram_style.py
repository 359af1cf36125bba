from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from painted_tiles import paint_tile
from stainfuser.errors import ConfigError, TrainingError
from stainfuser.nn.feature_networks import load_feature_network
from stainfuser.nn.gram_style import GramStyle, GramStyleOptions, gram_matrix, relative_error
from stainfuser.stain.metrics import ciede2000, gradient_correlation

OPTIONS = GramStyleOptions(optimizer="lbfgs", iterations=15, content_weight=1.0, style_weight=1.0)


@pytest.fixture(scope="module")
def network():
    torch.set_num_threads(1)
    return load_feature_network("squeezenet", None, allow_random_weights=True, seed=1)


def style_error(network, image: np.ndarray, style: GramStyle) -> float:
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    features = network(pixels)
    return float(
        sum(relative_error(gram_matrix(features[n]), g) for n, g in style.target_grams.items())
    )


def test_gram_matrix_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    assert gram_matrix(features).tolist() == [[[2.5, 5.5], [5.5, 12.5]]]


def test_relative_error_does_not_see_the_scale():
    values, reference = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 2.0])
    assert relative_error(values, reference) == relative_error(50 * values, 50 * reference)
    assert relative_error(values, reference) == pytest.approx(0.125)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("form", ["pixels", "operator"])
def test_the_style_comes_nearer(network, optimizer: str, form: str):
    source, target = paint_tile(1, "violet"), paint_tile(2, "blue")
    style = GramStyle(network, target, replace(OPTIONS, optimizer=optimizer))
    result = getattr(style, form)(source)
    assert result.shape == source.shape
    assert result.dtype == np.uint8
    assert style_error(network, result, style) < 0.6 * style_error(network, source, style)


def test_the_operator_keeps_structure(network):
    source, target = paint_tile(1, "violet"), paint_tile(2, "blue")
    result = GramStyle(network, target, OPTIONS).operator(source)
    assert gradient_correlation(source, result) > 0.95
    # Equal colours in, equal colours out: it is a function of the colour alone.
    colours, place = np.unique(source.reshape(-1, 3), axis=0, return_inverse=True)
    flat = result.reshape(-1, 3)
    assert len(np.unique(np.column_stack([place.reshape(-1), flat]), axis=0)) == len(colours)


def test_without_style_the_content_stays(network):
    source = paint_tile(1)
    options = replace(OPTIONS, style_weight=1e-9)
    for form in ("pixels", "operator"):
        result = getattr(GramStyle(network, paint_tile(2, "blue"), options), form)(source)
        assert ciede2000(result, source) < 0.5


def test_runs_repeat(network):
    source, target = paint_tile(1), paint_tile(2, "blue")
    runs = [GramStyle(network, target, OPTIONS).pixels(source).tobytes() for _ in range(2)]
    assert runs[0] == runs[1]


def test_an_unknown_optimizer_is_a_configuration_error(network):
    with pytest.raises(ConfigError, match="use lbfgs or adam"):
        GramStyle(network, paint_tile(1), replace(OPTIONS, optimizer="sgd"))


def test_a_diverged_optimisation_is_an_error(network):
    options = replace(OPTIONS, optimizer="adam", iterations=1, content_weight=float("nan"))
    with pytest.raises(TrainingError, match="ran off to infinity"):
        GramStyle(network, paint_tile(1), options).pixels(paint_tile(2))
