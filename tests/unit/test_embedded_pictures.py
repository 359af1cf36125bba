"""Pictures as data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from stainfuser.embedded_pictures import embed_file, embed_photo


def decoded(picture) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(picture.uri.split(",", 1)[1])))


def test_a_photo_is_a_jpeg_with_full_colour_resolution():
    picture = embed_photo(np.full((20, 30, 3), (200, 80, 120), np.uint8), "text")
    image = decoded(picture)
    assert picture.uri.startswith("data:image/jpeg;base64,") and picture.alt == "text"
    assert (picture.width_px, picture.height_px) == image.size == (30, 20)
    assert np.abs(np.asarray(image).astype(int) - (200, 80, 120)).max() <= 3


def test_a_figure_is_embedded_byte_for_byte(tmp_path):
    path = tmp_path / "figure.png"
    Image.new("RGB", (40, 10), "red").save(path)
    picture = embed_file(path, "figure")
    assert base64.b64decode(picture.uri.split(",", 1)[1]) == path.read_bytes()


def test_a_large_picture_is_made_smaller(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (400, 100), "red").save(path)
    picture = embed_file(path, "large", max_side_px=100)
    assert decoded(picture).size == (picture.width_px, picture.height_px) == (100, 25)


@pytest.mark.parametrize("content", [None, b"", b"not a picture"])
def test_what_cannot_be_read_is_none(tmp_path, content):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    assert embed_file(path, "x") is None and embed_file(path, "x", 10) is None
