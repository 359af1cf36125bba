"""OpenSlide (and so TRIDENT and CLAM), tifffile and libvips see one and the same slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from slide_files import tissue_picture
from stainfuser.io.pyramid_writer import write_slide
from stainfuser.io.slides import SlideReader

SIZE, MPP, POWER = (2300, 1900), 0.4987, 20
LEVELS = [(2300, 1900), (575, 475)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("readers") / "a slide.svs"
    rgb = tissue_picture(2300)[:1900]
    rgb[1000:1300, 900:1500] = 255
    write_slide(path, rgb, mpp=MPP, objective_power=POWER)
    return path


@pytest.fixture(scope="module")
def by_openslide(slide) -> list[np.ndarray]:
    with openslide.OpenSlide(slide) as handle:
        assert list(handle.level_dimensions) == LEVELS
        assert float(handle.properties["openslide.mpp-x"]) == pytest.approx(MPP, rel=1e-6)
        assert float(handle.properties["openslide.mpp-y"]) == pytest.approx(MPP, rel=1e-6)
        assert float(handle.properties["openslide.objective-power"]) == POWER
        # Where CLAM and TRIDENT look next.
        assert float(handle.properties["aperio.AppMag"]) == POWER
        assert float(handle.properties["aperio.MPP"]) == pytest.approx(MPP, rel=1e-6)
        return [
            np.asarray(handle.read_region((0, 0), level, size).convert("RGB"))
            for level, size in enumerate(LEVELS)
        ]


def test_openslide_and_this_package(slide, by_openslide):
    with SlideReader(slide) as reader:
        assert [(level.width_px, level.height_px) for level in reader.levels] == LEVELS
        assert (reader.mpp, reader.objective_power) == (pytest.approx(MPP, rel=1e-6), POWER)
        for level, size in enumerate(LEVELS):
            assert np.array_equal(reader.read(0, 0, *size, level), by_openslide[level])


def test_tifffile(slide, by_openslide):
    with tifffile.TiffFile(slide) as tiff:
        levels = tiff.series[0].levels
        assert [level.shape[1::-1] for level in levels] == LEVELS
        across, over = tiff.pages[0].tags["XResolution"].value
        assert tiff.pages[0].tags["ResolutionUnit"].value == 3
        assert 1e4 / (across / over) == pytest.approx(MPP, rel=1e-6)
        assert f"MPP = {MPP}" in tiff.pages[0].description
        for level, expected in zip(levels, by_openslide, strict=True):
            assert np.array_equal(level.asarray(), expected)


@pytest.mark.parametrize("loader", ["tiffload", "openslideload"])
def test_libvips(slide, by_openslide, loader):
    pyvips = pytest.importorskip("pyvips")
    for level, (size, expected) in enumerate(zip(LEVELS, by_openslide, strict=True)):
        # Directory 1 is the thumbnail.
        page = {"page": level and level + 1} if loader == "tiffload" else {"level": level}
        try:
            image = getattr(pyvips.Image, loader)(str(slide), **page)
        except (AttributeError, pyvips.Error):
            pytest.skip(f"this libvips has no {loader}")
        assert (image.width, image.height) == size
        pixels = image.numpy()[..., :3]
        assert np.abs(pixels.astype(int) - expected).max() <= (
            0 if loader == "openslideload" else 1
        )
        if level == 0:
            assert 1e3 / image.xres == pytest.approx(MPP, rel=1e-3)


def test_a_plain_tiff_reader_sees_the_thumbnail_as_such(slide, by_openslide):
    from PIL import Image

    with Image.open(slide) as image:
        image.seek(1)
        assert max(image.size) <= 1024
        thumbnail = np.asarray(image.convert("RGB").resize(LEVELS[1]))
    assert np.abs(thumbnail.astype(int) - by_openslide[1]).mean() < 3
