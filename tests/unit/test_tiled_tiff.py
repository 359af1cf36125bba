"""Tiles decoded without OpenSlide: the same pixels, the same damage noticed."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile

from slide_files import tissue_picture
from stainfuser.io.filling_reader import FillingReader
from stainfuser.io.pyramid_writer import write_slide
from stainfuser.io.slides import CorruptRegionError, SlideReader

APERIO = "Aperio Image Library\r\n1024x1024 (256x256) JPEG|AppMag = 20|MPP = 0.5"
KINDS = {
    "ycbcr 4:4:4": {"subsampling": (1, 1)},
    "ycbcr 4:2:0": {"subsampling": (2, 2)},
    "ycbcr 4:2:2": {"subsampling": (2, 1)},
    "rgb": {"compressionargs": {"outcolorspace": "RGB", "level": 80}},
    "tiles of 240 px": {"tile": (240, 240)},
    "wide tiles": {"tile": (128, 512)},
    "aperio": {"description": APERIO},
    "deflate": {"compression": "adobe_deflate"},
    "deflated differences": {"compression": "adobe_deflate", "predictor": True},
}


def write_tiled_slide(path: Path, rgb: np.ndarray, levels: int = 1, **options) -> Path:
    given = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
    given |= {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", **options}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            pixels = rgb[:: 2**level, :: 2**level]
            tiff.write(pixels, subfiletype=int(level > 0), **given)
    return path


def tile_place(path: Path, index: int) -> tuple[int, int]:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        return page.dataoffsets[index], page.databytecounts[index]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with open(path, "r+b") as handle:
        handle.seek(offset)
        handle.write(content)


def assert_same(path: Path, seed: int = 0, rectangles: int = 40) -> None:
    rng = np.random.default_rng(seed)
    with SlideReader(path, 0.5) as fast, SlideReader(path, 0.5, fast=False) as slow:
        assert fast.levels == slow.levels
        for _ in range(rectangles):
            level = int(rng.integers(len(fast.levels)))
            x, y = (int(rng.integers(-200, side + 50)) for side in fast.size_px)
            width, height = (int(side) for side in rng.integers(1, 700, 2))
            found = fast.read_rgba(x, y, width, height, level)
            assert np.array_equal(found, slow.read_rgba(x, y, width, height, level))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_what_openslide_shows(tmp_path, kind):
    rgb = tissue_picture(1024)[:1000, :900]
    path = write_tiled_slide(tmp_path / "a.tif", rgb, levels=3, **KINDS[kind])
    with SlideReader(path) as reader:
        assert 0 in reader.tiles.levels
    assert_same(path)


def test_an_rgb_slide_is_not_taken_for_ycbcr(tmp_path):
    rgb = np.zeros((512, 512, 3), np.uint8)
    rgb[:] = (200, 40, 90)
    path = write_tiled_slide(tmp_path / "a.tif", rgb, **KINDS["rgb"])
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].photometric.name == "RGB"
    with SlideReader(path) as reader:
        assert np.abs(reader.read(0, 0, 512, 512).astype(int) - rgb).max() <= 4


def test_own_slides(tmp_path):
    path = tmp_path / "a.svs"
    write_slide(path, tissue_picture(2100)[:, :1700], mpp=0.5, objective_power=20)
    with SlideReader(path) as reader:
        assert 0 in reader.tiles.levels
        assert reader.tile_px == (256, 256)
    assert_same(path)


def test_a_real_slide_is_decoded_directly(shared_data):
    path = shared_data / "slides/cmu-1-small-region.svs"
    with SlideReader(path) as reader:
        assert reader.tile_px == (240, 240)
    assert_same(path)


def test_other_compressions_stay_with_openslide(tmp_path, shared_data):
    path = write_tiled_slide(tmp_path / "a.tif", tissue_picture(512), compression="lzw")
    for slide in (path, shared_data / "slides/tcga-cr-7395-01a-01-ts1.svs"):
        with SlideReader(slide) as reader:
            assert reader.tiles is None and reader.tile_px is None


def test_pixels_that_openslide_shows_differently_stay_with_it(tmp_path, monkeypatch):
    """Were a stream understood differently, if only in one level of grey, it would be noticed."""
    import stainfuser.io.tiled_tiff as module

    path = write_tiled_slide(tmp_path / "a.tif", tissue_picture(512))
    shown = module._Shown.tile
    monkeypatch.setattr(module._Shown, "tile", lambda *given: shown(*given) ^ 1)
    with SlideReader(path) as reader:
        assert reader.tiles is None


def test_threads_share_a_slide(tmp_path):
    rgb = tissue_picture(1024)
    path = write_tiled_slide(tmp_path / "a.tif", rgb)
    places = [(x, y) for y in range(0, 1024, 128) for x in range(0, 1024, 128)]
    with SlideReader(path, fast=False) as reader:
        expected = [reader.read(x, y, 128, 128) for x, y in places]
    with SlideReader(path) as reader, ThreadPoolExecutor(4) as pool:
        _ = reader.tiles
        found = list(pool.map(lambda place: reader.read(*place, 128, 128), places * 4))
    assert all(np.array_equal(a, b) for a, b in zip(found, expected * 4, strict=True))


def zeroed(stream: bytes) -> bytes:
    """A hole in the stream: most decoders show grey smear without an error."""
    middle = len(stream) // 2
    return stream[:middle] + bytes(len(stream) // 4) + stream[middle + len(stream) // 4 :]


def cut(stream: bytes) -> bytes:
    return stream[: len(stream) // 2] + bytes(len(stream) - len(stream) // 2)


def nonsense(stream: bytes) -> bytes:
    return b"\xff" * len(stream)


@pytest.mark.parametrize("damage", [zeroed, cut, nonsense])
def test_a_damaged_tile_is_noticed(tmp_path, damage):
    rgb = tissue_picture(1024)
    path = write_tiled_slide(tmp_path / "a.tif", rgb)
    offset, count = tile_place(path, 5)
    overwrite(path, offset, damage(path.read_bytes()[offset : offset + count]))
    with SlideReader(path) as reader:
        with pytest.raises(CorruptRegionError, match="x 256, y 256"):
            reader.read(256, 256, 256, 256)
        assert reader.read(512, 0, 256, 256).std() > 5
    with SlideReader(path, fast=False) as reader, pytest.raises(CorruptRegionError):
        reader.read(256, 256, 256, 256)
    with SlideReader(path) as reader:
        filling = FillingReader(reader, (1, 2, 3))
        pixels = np.empty((512, 512, 4), np.uint8)
        filling.read_rgbx(0, 0, pixels)
        assert (pixels[256:, 256:, :3] == (1, 2, 3)).all()
        assert (pixels[:256, :, :3].std((0, 1)) > 0).all()
        area = sum(w * h for _, _, w, h in filling.take_filled(0, 0, 1024, 1024))
        assert area == 256 * 256


def test_damaged_deflate_is_noticed_whatever_it_inflates_to(tmp_path):
    """Most such tiles OpenSlide shows as noise, without an error."""
    path = write_tiled_slide(tmp_path / "a.tif", tissue_picture(1024), compression="adobe_deflate")
    whole = path.read_bytes()
    offset, count = tile_place(path, 5)
    silent = 0
    for seed in range(10):
        path.write_bytes(whole)
        overwrite(path, offset + count // 3, np.random.default_rng(seed).bytes(400))
        with SlideReader(path) as reader, pytest.raises(CorruptRegionError, match="x 256, y 256"):
            reader.read(256, 256, 256, 256)
        with SlideReader(path, fast=False) as reader, contextlib.suppress(CorruptRegionError):
            reader.read(256, 256, 256, 256)
            silent += 1
    assert silent > 0


def test_a_tile_of_another_size_is_damage(tmp_path):
    from stainfuser.io.bigtiff import encode_jpeg

    path = write_tiled_slide(tmp_path / "a.tif", tissue_picture(1024))
    offset, count = tile_place(path, 5)
    for shape in ((64, 64, 3), (8, 4000, 3)):
        other = encode_jpeg(np.zeros(shape, np.uint8), 50)
        overwrite(path, offset, other + bytes(count - len(other)))
        with SlideReader(path) as reader, pytest.raises(CorruptRegionError):
            reader.read(256, 256, 64, 64)


def test_a_slide_is_looked_at_anew_when_it_changed(tmp_path):
    path = write_tiled_slide(tmp_path / "a.tif", tissue_picture(512))
    with SlideReader(path) as reader:
        assert reader.tiles is not None
    write_tiled_slide(path, tissue_picture(768), compression="lzw")
    with SlideReader(path) as reader:
        assert reader.tiles is None
        assert reader.size_px == (768, 768)


def test_a_scanner_whose_tiles_all_raise_warnings_is_read(tmp_path, caplog):
    """Extra bytes before the end of every stream: a warning each, and the picture is whole."""
    path = write_tiled_slide(tmp_path / "a.tif", tissue_picture(512))
    for index in range(4):
        offset, count = tile_place(path, index)
        stream = path.read_bytes()[offset : offset + count]
        scan = stream.index(b"\xff\xda")
        comment = b"\xff\xfe\x00\x02"
        odd = stream[:scan] + comment + stream[scan:-2] + b"\x11" * 64 + stream[-2:]
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            end = path.stat().st_size
            page = tiff.pages[0]
            offsets, counts = list(page.dataoffsets), list(page.databytecounts)
            offsets[index], counts[index] = end, len(odd)
            page.tags["TileOffsets"].overwrite(offsets)
            page.tags["TileByteCounts"].overwrite(counts)
        with open(path, "ab") as handle:
            handle.write(odd)
    with caplog.at_level("WARNING", logger="stainfuser"), SlideReader(path) as reader:
        assert not reader.tiles.levels[0].codec.strict
    assert "out of the ordinary" in caplog.text
    assert_same(path, rectangles=10)
