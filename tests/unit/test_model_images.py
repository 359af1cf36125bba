"""What the pipeline takes as an image, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from stainfuser.diffusion.images import MAX_SIDE_PX, image_list, reflect_pad, to_uint8
from stainfuser.errors import InputError


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_arrays_tensors_and_pictures_agree(pixels):
    as_tensor = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255.0
    for image in (pixels, as_tensor, as_tensor[None], Image.fromarray(pixels), [pixels]):
        (found,) = image_list(image, "source")
        assert found.shape == (3, 5, 7)
        assert torch.allclose(found, as_tensor)
        assert np.array_equal(to_uint8(found), pixels)


def test_batches_and_lists_are_flattened(pixels):
    assert len(image_list(np.stack([pixels, pixels]), "source")) == 2
    assert len(image_list([np.stack([pixels, pixels]), Image.fromarray(pixels)], "source")) == 3


def test_transparency_is_white(pixels):
    rgba = np.dstack([pixels, np.zeros((5, 7), np.uint8)])
    (found,) = image_list(Image.fromarray(rgba), "source")
    assert torch.equal(found, torch.ones(3, 5, 7))


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((4, 4), np.uint8), "has shape"),
        (np.zeros((4, 4, 4), np.uint8), "has shape"),
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((1, MAX_SIDE_PX + 1, 3), np.uint8), "tiles"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "floating point"),
        (torch.zeros(4, 4, 3), "has shape"),
        (torch.full((3, 4, 4), 2.0), "expected \\[0, 1\\]"),
        (torch.full((3, 4, 4), float("nan")), "expected \\[0, 1\\]"),
        (Image.new("L", (4, 4)), "has shape"),
        (Image.new("I;16", (4, 4)), "uint16"),
        ([], "empty"),
        ("tile.png", "not an image"),
        (None, "not an image"),
    ],
)
def test_anything_else_is_refused_in_one_sentence(image, says):
    with pytest.raises(InputError, match=says) as caught:
        image_list(image, "source")
    assert str(caught.value).startswith("source: ")


@pytest.mark.parametrize("length", [1, 2, 3, 15, 16, 17])
def test_padding_mirrors_whatever_the_size(length):
    image = torch.arange(length, dtype=torch.float32).expand(3, 2, length)
    padded = reflect_pad(image, 16)
    assert padded.shape[-1] % 16 == 0
    assert padded.shape[-2] == 16
    assert torch.equal(padded[:, :2, :length], image)
    expected = np.pad(np.arange(length), (0, padded.shape[-1] - length), mode="reflect")
    assert padded[0, 0].tolist() == expected.tolist()
