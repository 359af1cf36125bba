"""Swatches: the colour of nuclei and of other tissue."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.stain.class_colours import class_colours, typical_colours

GLASS, NUCLEI, STROMA = (244, 243, 245), (90, 60, 140), (225, 150, 190)


def mixture(colours: tuple, counts: tuple) -> np.ndarray:
    pixels = np.repeat(np.array(colours), counts, axis=0)
    noise = np.random.default_rng(0).normal(0, 3, pixels.shape)
    return np.clip(pixels + noise, 0, 255).astype(np.uint8).reshape(10, -1, 3)


def test_colours_of_both_tissues_are_found():
    found = class_colours(mixture((GLASS, NUCLEI, STROMA), (400, 100, 500)))
    assert found["nuclei"] == pytest.approx(NUCLEI, abs=8)
    assert found["stroma"] == pytest.approx(STROMA, abs=8)


def test_a_normalised_image_is_divided_like_its_source():
    source = mixture((GLASS, NUCLEI, STROMA), (400, 100, 500))
    swapped = mixture((GLASS, STROMA, NUCLEI), (400, 100, 500))
    found = class_colours(swapped, classes_of=source)
    assert found["nuclei"] == pytest.approx(STROMA, abs=8)


def test_what_hardly_occurs_has_no_colour():
    blank = np.full((10, 10, 3), 244, np.uint8)
    assert set(class_colours(blank)) <= {"background", "stroma"}
    assert "nuclei" not in class_colours(blank)


def test_one_tile_under_a_pen_does_not_move_the_typical_colour():
    tissue = mixture((GLASS, NUCLEI, STROMA), (400, 100, 500))
    pen = np.full_like(tissue, (30, 60, 170))
    found = typical_colours(np.stack([tissue, pen, tissue]))
    assert found["nuclei"] == pytest.approx(NUCLEI, abs=8)
