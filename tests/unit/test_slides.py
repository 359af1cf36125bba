"""Reading slides: any resolution, white outside, damaged places named, one handle per process."""

from __future__ import annotations

import os

import numpy as np
import pytest

from slide_files import damage_tile, tissue_picture, write_tiff_slide
from stainfuser.errors import SlideError
from stainfuser.io.image_sets import ImageReader
from stainfuser.io.images import write_image
from stainfuser.io.slides import CorruptRegionError, SlideReader, plausible_mpp


@pytest.fixture(scope="module")
def picture():
    return tissue_picture(1024)


@pytest.fixture(scope="module")
def one_level(tmp_path_factory, picture):
    return write_tiff_slide(tmp_path_factory.mktemp("one") / "a.tif", picture)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory, picture):
    return write_tiff_slide(tmp_path_factory.mktemp("many") / "a.tif", picture, levels=3)


def test_properties(pyramid):
    with SlideReader(pyramid) as reader:
        assert reader.size_px == (1024, 1024)
        assert reader.mpp == pytest.approx(0.5, abs=1e-4)
        assert [level.downsample for level in reader.levels] == [1, 2, 4]
        assert reader.objective_power is None


def test_level_0_is_read_exactly_whatever_the_pieces(one_level, picture):
    with SlideReader(one_level) as reader:
        assert np.array_equal(reader.read(100, 50, 800, 700), picture[50:750, 100:900])


def test_outside_is_white_or_transparent_never_black(one_level, picture):
    with SlideReader(one_level) as reader:
        assert (reader.read(-64, 1000, 64, 64) == 255).all()
        rgba = reader.read_rgba(1000, 0, 64, 64)
    assert (rgba[:, 24:, 3] == 0).all()
    assert (rgba[:, :24, 3] == 255).all()
    assert np.array_equal(rgba[:, :24, :3], picture[:64, 1000:])


def test_the_native_resolution_is_not_resampled(one_level, picture):
    with SlideReader(one_level, mpp_override=0.5) as reader:
        assert np.array_equal(reader.read_at_mpp(10, 20, 256, 0.5), picture[20:276, 10:266])


@pytest.mark.parametrize("mpp", [1.0, 1.3, 4.0, 0.4])
def test_any_resolution_shows_the_same_place(one_level, pyramid, picture, mpp):
    size = int(300 / mpp)
    with SlideReader(one_level, 0.5) as flat, SlideReader(pyramid, 0.5) as deep:
        a = flat.read_at_mpp(200, 150, size, mpp).astype(float)
        b = deep.read_at_mpp(200, 150, size, mpp).astype(float)
    truth = picture[150:750, 200:800].mean(axis=(0, 1))
    assert np.abs(a.mean(axis=(0, 1)) - truth).max() < 1.5
    # The test pyramid is decimated, not averaged: only large structures agree.
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.6


def test_downsampling_is_antialiased(tmp_path):
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    with SlideReader(write_tiff_slide(tmp_path / "a.tif", stripes), 0.5) as reader:
        for mpp, size in ((1.0, 128), (4.0, 32)):
            inner = reader.read_at_mpp(64, 64, size, mpp)
            assert np.abs(inner.astype(int) - 127).max() <= 2


@pytest.mark.parametrize("mpp", [0.7, 1.0, 3.7, 8.0])
def test_adjoining_squares_meet_without_a_seam(one_level, mpp):
    with SlideReader(one_level, 0.5) as reader:
        size = int(200 / mpp)
        step = size * mpp / 0.5
        whole = reader.read_at_mpp(33, 41, (2 * size, size), mpp).astype(int)
        left = reader.read_at_mpp(33, 41, size, mpp)
        right = reader.read_at_mpp(33 + step, 41, size, mpp)
    assert np.abs(whole - np.concatenate([left, right], axis=1)).max() <= 2


def test_the_edge_of_the_slide_does_not_bleed(tmp_path):
    dark = np.full((512, 512, 3), 60, np.uint8)
    with SlideReader(write_tiff_slide(tmp_path / "a.tif", dark), 0.5) as reader:
        assert (reader.thumbnail(100) == 60).all()
        over_the_edge = reader.read_at_mpp(256, 256, 64, 4.0)
    assert (over_the_edge[:29, :29] <= 66).all()
    assert (over_the_edge[34:, :] >= 250).all()


def test_thumbnail_keeps_the_aspect(tmp_path, picture):
    path = write_tiff_slide(tmp_path / "a.tif", picture[:512])
    with SlideReader(path) as reader:
        assert reader.thumbnail(256).shape == (128, 256, 3)
        assert reader.thumbnail(5000).shape == (512, 1024, 3)
        assert reader.thumbnail_rgba(64).shape == (32, 64, 4)


def test_a_damaged_tile_is_named_and_the_others_stay_readable(tmp_path, picture):
    path = write_tiff_slide(tmp_path / "bad.tif", picture)
    damage_tile(path, 5)
    with SlideReader(path, 0.5) as reader:
        with pytest.raises(CorruptRegionError, match=r"x 256, y 256.*damaged") as error:
            reader.read(256, 256, 128, 128)
        assert error.value.rectangle == (256, 256, 128, 128, 0)
        assert error.value.verdict == "corrupt"
        assert np.array_equal(reader.read(512, 0, 256, 256), picture[:256, 512:768])


def test_damaged_places_can_be_filled(tmp_path, picture):
    path = write_tiff_slide(tmp_path / "bad.tif", picture)
    damage_tile(path, 5)
    with SlideReader(path, 0.5, fill_corrupt=True) as reader:
        rgba = reader.read_rgba(0, 0, 1024, 1024)
    damaged = np.zeros((1024, 1024), bool)
    damaged[256:512, 256:512] = True
    assert np.array_equal(rgba[..., 3] == 0, damaged)
    assert np.array_equal(rgba[~damaged, :3], picture[~damaged])
    assert len(reader.corrupt_regions) == 16
    assert all(256 <= x < 512 and level == 0 for x, _, _, _, level in reader.corrupt_regions)


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_text("not a slide"), "not_a_slide"),
    ],
)
def test_what_is_no_slide_says_what_it_is(tmp_path, make, verdict):
    make(tmp_path / "a.svs")
    with pytest.raises(SlideError) as error:
        _ = SlideReader(tmp_path / "a.svs").levels
    assert error.value.verdict == verdict


def test_pixels_left_behind_are_named(tmp_path):
    """MIRAX keeps them in a folder named like the slide."""
    path = tmp_path / "slide.mrxs"
    write_image(tmp_path / "a.jpg", tissue_picture(64))
    (tmp_path / "a.jpg").rename(path)
    with pytest.raises(SlideError, match="the folder slide, which holds its pixels") as error:
        _ = SlideReader(path).levels
    assert error.value.verdict == "no_companion"
    (tmp_path / "slide").mkdir()
    with pytest.raises(SlideError) as error:
        _ = SlideReader(path).levels
    assert error.value.verdict in ("not_a_slide", "unreadable")


HAMAMATSU = {
    "a.vms": "[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns=1\nNoJpegRows=1\n"
    "ImageFile=a pixels.jpg\nMapFile=a_map2.jpg\nOptimisationFile=a.opt\nSourceLens=20\n",
    "a.vmu": "[Uncompressed Virtual Microscope Specimen]\nNoLayers=1\nImageFile=a pixels.jpg\n"
    "MapFile=a_map2.jpg\nBitsPerPixel=36\nPixelOrder=RGB\n",
}


@pytest.mark.parametrize("name", HAMAMATSU)
def test_files_left_behind_are_named(tmp_path, name):
    """Hamamatsu's older formats are an index of files beside it."""
    (tmp_path / name).write_text(HAMAMATSU[name])
    for missing in ("a pixels.jpg", "a_map2.jpg"):
        with pytest.raises(SlideError, match=f"the file {missing}, which holds") as error:
            _ = SlideReader(tmp_path / name).levels
        assert error.value.verdict == "no_companion"
        (tmp_path / missing).write_bytes(b"no picture")
    with pytest.raises(SlideError) as error:
        _ = SlideReader(tmp_path / name).levels
    assert error.value.verdict in ("not_a_slide", "unreadable")


def _stated(mpp_x, mpp_y="0.25"):
    return {"openslide.mpp-x": mpp_x, "openslide.mpp-y": mpp_y}


def test_plausible_resolutions():
    assert plausible_mpp("a", _stated("0.2501", "0.2499")) == pytest.approx(0.25)
    assert plausible_mpp("a", _stated("0.05", "0.05")) == 0.05


@pytest.mark.parametrize(
    "properties",
    [{}, *(_stated(x, x) for x in ("0", "-1", "5000", "352.8", "nan", "x")), _stated("0.5")],
)
def test_implausible_resolutions_name_the_remedy(properties):
    with pytest.raises(SlideError, match="--config mpp=") as error:
        plausible_mpp("a", properties)
    assert error.value.verdict == "no_mpp"


def test_a_missing_resolution_is_guessed_aloud_from_the_objective():
    with pytest.raises(SlideError, match=r"40x usually gives about 0\.25"):
        plausible_mpp("a", {"openslide.objective-power": "40"})


def test_a_forked_process_opens_its_own_handle(one_level, picture):
    with SlideReader(one_level) as reader:
        parents = reader.handle
        child = os.fork()
        if child == 0:
            good = reader.handle is not parents
            good = good and np.array_equal(reader.read(0, 0, 64, 64), picture[:64, :64])
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert reader.handle is parents


def test_plain_images_read_like_slides(tmp_path, picture):
    write_image(tmp_path / "a.png", picture[:300, :500])
    with ImageReader(tmp_path / "a.png", 0.5) as reader:
        assert reader.size_px == (500, 300)
        assert np.array_equal(reader.read_at_mpp(7, 9, 128, 0.5), picture[9:137, 7:135])
        assert (reader.read(490, 0, 20, 20)[:, 10:] == 255).all()
        assert reader.read_at_mpp(0, 0, 64, 2.0).shape == (64, 64, 3)


def test_real_slides(shared_data):
    with SlideReader(shared_data / "slides/cmu-1-small-region.svs") as reader:
        assert (reader.size_px, reader.mpp) == ((2220, 2967), 0.499)
        assert reader.objective_power == 20
        assert reader.read_at_mpp(500.5, 800.25, 64, 8.0).shape == (64, 64, 3)
    with SlideReader(shared_data / "slides/tcga-cr-7395-01a-01-ts1.svs") as reader:
        assert len(reader.icc_profile) == 3144
        with pytest.raises(SlideError, match="does not say its resolution"):
            _ = reader.mpp


def test_a_level_of_odd_downsample_is_read_in_place(shared_data):
    """TCGA's second level is 2.0005 times smaller: pieces must not drift."""
    with SlideReader(shared_data / "slides/tcga-cr-7395-01a-01-ts1.svs", 0.25) as reader:
        coarse = reader.read_at_mpp(3000, 2400, 256, 0.5).astype(float)
        fine = reader.read_at_mpp(3000, 2400, 512, 0.25).astype(float)
    averaged = fine.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    shifted = np.roll(averaged, 1, axis=1)
    assert np.abs(coarse - averaged).mean() < 0.75 * np.abs(coarse - shifted).mean()
