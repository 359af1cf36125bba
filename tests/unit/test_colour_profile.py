"""Colour profiles keep their numbers and lose their words."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from stainfuser.io.colour_profile import without_words


def profile(planted: bytes = b"") -> bytes:
    """Return an sRGB profile, with words planted in its description."""
    content = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack_from(">I", content, 128)[0]
    for number in range(count if planted else 0):
        name, offset, size = struct.unpack_from(">4sII", content, 132 + 12 * number)
        if name == b"desc":
            words = planted.decode().encode("utf-16-be")[: size - 28]
            content[offset + 28 : offset + 28 + len(words)] = words
    return bytes(content)


def test_words_go_and_colours_stay():
    planted = profile(b"Quixotl")
    assert "Quixotl".encode("utf-16-be")[:8] in planted
    cleaned = without_words(planted)
    assert len(cleaned) == len(planted)
    for text in ("Quixotl"[:4], "sRGB"):
        assert text.encode("utf-16-be") not in cleaned
        assert text.encode() not in cleaned[132 + 12 * 20 :]
    pixels = Image.fromarray(np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8))
    lab = ImageCms.createProfile("LAB")
    seen = [
        np.asarray(ImageCms.profileToProfile(pixels, io.BytesIO(one), lab, outputMode="LAB"))
        for one in (planted, cleaned)
    ]
    np.testing.assert_array_equal(*seen)


def test_cleaning_twice_changes_nothing_more():
    cleaned = without_words(profile())
    assert without_words(cleaned) == cleaned


@pytest.mark.parametrize("content", [b"", b"quixotl", b"\0" * 200, profile()[:140]])
def test_what_is_no_profile_is_dropped(content):
    assert without_words(content) is None
