"""From a slide or images to a mask and tiles: right places, right pixels, same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from cohort_stages import PROBE, TILES, Entry
from PIL import Image

from slide_files import damage_tile, tissue_picture, write_tiff_slide
from stainfuser.errors import SlideError
from stainfuser.io.images import read_image, write_image
from stainfuser.io.masks import read_mask, read_mask_atlas
from stainfuser.io.tile_store import TileReader


@pytest.fixture(scope="module")
def picture():
    return tissue_picture(1024)


@pytest.fixture(scope="module")
def entry(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("entry")
    made = Entry(write_tiff_slide(folder / "a.svs", picture, levels=2), folder)
    made.probe()
    made.mask()
    return made


@pytest.fixture(scope="module")
def image_set(tmp_path_factory, picture):
    folder = tmp_path_factory.mktemp("images")
    write_image(folder / "set" / "large.png", picture[300:700, 200:760])
    write_image(folder / "set" / "narrow.png", picture[300:400, 200:760])
    write_image(folder / "set" / "small.png", picture[300:350, 300:350])
    Image.new("RGB", (300, 300), "white").save(folder / "set" / "blank.png")
    made = Entry(folder / "set", folder, "set")
    made.probe()
    made.mask()
    return made


def test_the_mask_covers_the_tissue(entry):
    mask = read_mask(entry.mask_path)
    y, x = (np.mgrid[:64, :64] + 0.5) / 64 - 0.5
    truth = (x / 0.40) ** 2 + (y / 0.33) ** 2 < 1
    assert mask.shape == (64, 64)
    assert (mask & truth).sum() / (mask | truth).sum() > 0.93
    with Image.open(entry.mask_path) as image:
        assert image.text["rule"] == "mask_tissue"
        assert set(np.unique(image)) == {0, 255}


def test_the_overlay_is_a_picture(entry):
    with Image.open(entry.overlay_path) as image:
        assert image.format == "JPEG"
        assert image.size == (1000, 1000)
        assert b"mask_tissue" in image.info["comment"]


def test_tiles_are_tissue_at_their_coordinates(entry, picture):
    with TileReader(entry.tiles()) as reader:
        assert len(reader) == 10
        for tile, (x, y) in zip(reader.images[:], reader.coords, strict=True):
            assert np.array_equal(tile, picture[y : y + 128, x : x + 128])
            # Background is 243: a tile is mostly tissue.
            assert (tile[..., 1] < 220).mean() > 0.45
        assert (reader.coords % 128 == 0).all()
        assert len(np.unique(reader.coords, axis=0)) == 10
        order = reader.coords[:, 1] * 10_000 + reader.coords[:, 0]
        assert (np.diff(order) > 0).all()
        attributes = reader.attrs
    assert attributes["slide"] == entry.name
    assert (attributes["tile_px"], attributes["mpp"], attributes["level0_tile_px"]) == (
        128,
        0.5,
        128,
    )
    assert (len(attributes["source_sha256"]), attributes["rule"]) == (64, "extract_tiles")
    assert str(entry.folder) not in str(attributes)


def test_other_resolutions(entry, picture):
    with TileReader(entry.tiles(mpp=1.0, tile_px=96)) as reader:
        assert reader.attrs["level0_tile_px"] == 192
        x, y = reader.coords[0]
        truth = picture[y : y + 192, x : x + 192].reshape(96, 2, 96, 2, 3).mean(axis=(1, 3))
        assert np.abs(reader.images[0] - truth).mean() < 12
        assert np.abs(reader.images[0].mean(axis=(0, 1)) - truth.mean(axis=(0, 1))).max() < 4
    with TileReader(entry.tiles(mpp=0.2)) as reader:
        assert reader.attrs["level0_tile_px"] == 51
        assert reader.images.shape == (10, 128, 128, 3)


def test_the_seed_and_the_name_choose(entry):
    def coordinates(made, **changes):
        with TileReader(made.tiles(max_per_slide=5, **changes)) as reader:
            return reader.coords.tolist()

    first = coordinates(entry)
    assert first == coordinates(entry)
    assert first != coordinates(entry, seed=2)


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_the_same_call_gives_the_same_bytes(entry, encoding):
    first = entry.tiles(encoding=encoding).read_bytes()
    assert entry.tiles(encoding=encoding).read_bytes() == first


def test_masks_and_records_repeat(entry):
    before = [path.read_bytes() for path in (entry.mask_path, entry.overlay_path)]
    entry.mask()
    assert [path.read_bytes() for path in (entry.mask_path, entry.overlay_path)] == before


def test_no_tile_over_the_threshold_is_an_empty_store(entry):
    with TileReader(entry.tiles(tile_px=900, min_tissue_fraction=0.99)) as reader:
        assert len(reader) == 0
        assert reader.images[:].shape == (0, 900, 900, 3)
        assert reader.attrs["slide"] == entry.name


def test_a_slide_smaller_than_a_tile_is_mirrored(entry):
    with TileReader(entry.tiles(tile_px=1200, min_tissue_fraction=0.1)) as reader:
        (tile,) = reader.images[:]
    assert np.array_equal(tile[1024:1100], tile[1022:946:-1])


def test_damaged_tiles_are_left_out(tmp_path, picture):
    path = write_tiff_slide(tmp_path / "a.tif", picture)
    damage_tile(path, 5)
    made = Entry(path, tmp_path)
    made.probe()
    made.mask()
    with TileReader(made.tiles(max_per_slide=99)) as reader:
        inside = (reader.coords >= 256).all(axis=1) & (reader.coords < 512).all(axis=1)
        assert len(reader) > 15
        assert not inside.any()


def test_every_tile_damaged_is_one_sentence(entry, tmp_path, picture):
    path = write_tiff_slide(tmp_path / "a.svs", picture)
    for index in range(16):
        damage_tile(path, index)
    damaged = Entry(path, entry.folder)
    with pytest.raises(SlideError, match="none of its tiles can be decoded"):
        damaged.tiles()
    assert damaged.tiles_path.parent.exists()


@pytest.mark.parametrize("stage", ["mask", "tiles"])
def test_a_slide_with_another_verdict_is_refused(tmp_path, stage):
    made = Entry(tmp_path / "gone.svs", tmp_path)
    made.probe()
    with pytest.raises(SlideError, match="no such file") as error:
        getattr(made, stage)()
    assert error.value.verdict == "missing"


def test_masks_of_images_lie_in_an_atlas(image_set):
    masks = read_mask_atlas(image_set.mask_path)
    assert list(masks) == ["blank.png", "large.png", "narrow.png", "small.png"]
    assert masks["large.png"].shape == (100, 140)
    assert masks["large.png"].mean() > 0.8
    assert not masks["blank.png"].any()
    assert read_image(image_set.overlay_path).shape[1] == 1000


def test_tiles_of_images(image_set, picture):
    with TileReader(image_set.tiles(max_per_slide=100)) as reader:
        names = [reader.image_names[index] for index in reader.image_index]
        assert set(names) == {"large.png", "narrow.png"}
        for tile, (x, y), name in zip(reader.images[:], reader.coords, names, strict=True):
            image = read_image(image_set.path / name)
            height = min(128, image.shape[0])
            assert np.array_equal(tile[:height], image[y : y + 128, x : x + 128])
            if height < 128:
                assert np.array_equal(tile[100:], tile[98:70:-1])
        assert reader.attrs["level0_tile_px"] == 128


def test_images_smaller_than_half_a_tile_only(image_set):
    with pytest.raises(SlideError, match="tile_px"):
        image_set.tiles(tile_px=2048)


def test_images_of_known_resolution_are_resampled(image_set):
    image_set.probe(mpp_default=0.25)
    with TileReader(image_set.tiles(mpp=0.5)) as reader:
        assert reader.attrs["level0_tile_px"] == 256
        assert reader.images.shape[1:] == (128, 128, 3)
    image_set.probe()


def test_a_single_image(tmp_path, picture):
    write_image(tmp_path / "a.png", picture[300:700, 200:760])
    made = Entry(tmp_path / "a.png", tmp_path)
    made.probe()
    made.mask()
    with TileReader(made.tiles()) as reader:
        assert len(reader) == 10


def test_a_kill_leaves_nothing_and_the_next_run_the_same_bytes(entry, repository):
    """The process is killed while tiles are being written."""
    options = {**TILES, "tile_px": 16, "max_per_slide": 3000}
    whole = entry.tiles(**options).read_bytes()
    entry.tiles_path.unlink()
    paths = {
        "slide": entry.name,
        "slide_path": str(entry.path),
        "json_path": str(entry.json_path),
        "mask_path": str(entry.mask_path),
        "tiles_path": str(entry.tiles_path),
    }
    code = (
        "import sys; sys.path.insert(0, 'scripts')\n"
        "from stainfuser.stages.extract_tiles import extract_tiles\n"
        f"extract_tiles(**{paths!r}, **{options!r})\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=repository, stderr=subprocess.DEVNULL
    )
    folder = entry.tiles_path.parent
    while child.poll() is None and not list(folder.glob(".*.tmp.h5")):
        pass
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not entry.tiles_path.exists()
    assert entry.tiles(**options).read_bytes() == whole


def test_real_slides(tmp_path, shared_data):
    for name, mpp in (("cmu-1-small-region", None), ("tcga-cr-7395-01a-01-ts1", 0.5)):
        made = Entry(shared_data / f"slides/{name}.svs", tmp_path, name)
        assert made.probe(mpp_default=mpp)["verdict"] == "ok"
        made.mask()
        with TileReader(made.tiles(tile_px=256, max_per_slide=20)) as reader:
            assert len(reader) == 20
            brightness = reader.images[:].mean(axis=(1, 2))
        assert (brightness[:, 1] < 215).all()


def test_the_defaults_of_the_configuration_are_the_stages_options(repository):
    import yaml

    config = yaml.safe_load((repository / "config.yaml").read_text())
    assert set(config["tiles"]) == set(TILES) - {"seed"}
    assert set(config["probe"]) == set(PROBE) - {"mpp_override", "mpp_default"}
