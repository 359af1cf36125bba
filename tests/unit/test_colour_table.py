from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFilter

from stainfuser.stain.colour_table import ColourTable


def nodes_of(table: ImageFilter.Color3DLUT) -> np.ndarray:
    return np.array(table.table, np.float32).reshape(*table.size[::-1], 3)


def all_kinds_of_pixels(side_px: int = 256) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (side_px, side_px, 4)).astype(np.uint8)
    pixels[:2] = 0
    pixels[-2:] = 255
    return pixels


@pytest.mark.parametrize("count", [2, 17, 33])
def test_it_interpolates_as_pillow_does(count):
    """To one level: Pillow's arithmetic has 10 bits between nodes."""
    table = ImageFilter.Color3DLUT.generate(
        count, lambda r, g, b: (0.8 * r + 0.1 * b, g**0.7, 0.3 + 0.5 * b * r)
    )
    pixels = all_kinds_of_pixels()
    rgb = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
    expected = np.asarray(rgb.filter(table)).astype(int)
    found = ColourTable(nodes_of(table)).apply(pixels)[..., :3]
    assert np.abs(found - expected).max() <= 1
    assert (found == expected).mean() > 0.95


def test_the_identity_is_exact_and_channels_keep_their_place():
    table = ColourTable(nodes_of(ImageFilter.Color3DLUT.generate(33, lambda r, g, b: (r, g, b))))
    pixels = all_kinds_of_pixels()
    assert np.array_equal(table.apply(pixels)[..., :3], pixels[..., :3])


def test_filler_does_not_matter_and_parts_of_a_picture_can_be_mapped():
    table = ColourTable(nodes_of(ImageFilter.Color3DLUT.generate(5, lambda r, g, b: (b, r, g))))
    pixels = all_kinds_of_pixels()
    whole = table.apply(pixels).copy()
    other = pixels.copy()
    other[..., 3] = 7
    assert np.array_equal(table.apply(other), whole)
    assert np.array_equal(table.apply(pixels[10:200, 31:77]), whole[10:200, 31:77])


def test_threads_do_not_share_memory():
    table = ColourTable(nodes_of(ImageFilter.Color3DLUT.generate(5, lambda r, g, b: (1 - r, g, b))))
    pictures = [np.full((64, 64, 4), value, np.uint8) for value in range(0, 250, 10)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda picture: table.apply(picture)[0, 0, 0], pictures * 8))
    assert results == [255 - picture[0, 0, 0] for picture in pictures] * 8
