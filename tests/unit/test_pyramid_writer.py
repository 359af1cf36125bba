from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile

from stainfuser.errors import InputError
from stainfuser.io.bigtiff import encode_jpeg
from stainfuser.io.journal import Journal
from stainfuser.io.pyramid_writer import PyramidWriter, write_slide
from stainfuser.io.slide_layout import SlideSpec, plan_blocks, reduce_by_step


def textured(width_px: int, height_px: int) -> np.ndarray:
    """Smooth colours with a blank corner: JPEG keeps them, and tiles are shared."""
    y, x = np.mgrid[:height_px, :width_px]
    red = 128 + 100 * np.sin(x / 37)
    green = 128 + 100 * np.cos(y / 23)
    rgb = np.stack([red, green, 200 - 40 * np.sin((x + y) / 61)], -1).astype(np.uint8)
    rgb[height_px // 2 :, width_px // 2 :] = 255
    return rgb


def small_spec(**changes) -> SlideSpec:
    given = {"width_px": 1500, "height_px": 1250, "mpp": 0.499, "objective_power": 20.0}
    return SlideSpec(**{**given, "tile_px": 128, "block_px": 256, **changes})


def write_blocks(
    writer: PyramidWriter, rgb: np.ndarray, stop: int | None = None, pause_s: float = 0.0
) -> None:
    for block in writer.remaining()[:stop]:
        rows = rgb[block.y_px : block.y_px + block.height_px]
        writer.write(block, rows[:, block.x_px : block.x_px + block.width_px], note=block.index)
        time.sleep(pause_s)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[Path, np.ndarray]:
    folder = tmp_path_factory.mktemp("written")
    rgb = textured(1500, 1250)
    path = folder / "out" / 'a "slide" façade.svs'
    spec = small_spec(stamp={"StainFuser model_sha256": "f" * 64}, icc_profile=b"profile" * 9)
    with PyramidWriter(path, folder / "work", spec, key="k", threads=2) as writer:
        write_blocks(writer, rgb)
        writer.finish()
    assert not (folder / "work").exists()
    return path, rgb


def test_openslide_finds_everything(written):
    path, rgb = written
    with openslide.OpenSlide(path) as slide:
        assert slide.properties["openslide.vendor"] == "aperio"
        assert slide.level_dimensions == ((1500, 1250), (375, 312))
        assert float(slide.properties["openslide.mpp-x"]) == 0.499
        assert slide.properties["openslide.objective-power"] == "20"
        assert set(slide.associated_images) == {"thumbnail"}
        read = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))
        assert (read[..., 3] == 255).all()
        assert np.abs(read[..., :3].astype(int) - rgb).mean() < 1.0
        level = np.asarray(slide.read_region((0, 0), 1, (375, 312)))[..., :3]
        assert np.abs(level.astype(int) - reduce_by_step(rgb)).mean() < 1.5
        thumbnail = np.asarray(slide.associated_images["thumbnail"].convert("RGB"))
        assert np.abs(thumbnail.astype(int) - level).mean() < 2.0


def test_tifffile_agrees(written):
    path, rgb = written
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_svs and tiff.is_bigtiff
        assert [series.name for series in tiff.series] == ["Baseline", "Thumbnail"]
        assert [level.shape[:2] for level in tiff.series[0].levels] == [(1250, 1500), (312, 375)]
        assert np.abs(tiff.series[0].asarray().astype(int) - rgb).mean() < 1.0
        pages = list(tiff.pages)
        assert [page.subfiletype for page in pages] == [0, 0, 0]
        assert [page.is_tiled for page in pages] == [True, False, True]
        assert all(page.photometric.name == "YCBCR" for page in pages)
        assert all(page.tags["YCbCrSubSampling"].value == (1, 1) for page in pages)
        assert pages[0].tags["InterColorProfile"].value == b"profile" * 9
        numerator, denominator = pages[0].tags["XResolution"].value
        assert numerator / denominator == pytest.approx(1e4 / 0.499, rel=1e-6)
        # Nothing but these tags: no date, user, file name or host.
        allowed = {254, 256, 257, 258, 259, 262, 270, 277, 282, 283, 284, 296, 305, 322, 323}
        allowed |= {324, 325, 530, 532, 34675, 273, 278, 279}
        assert {tag.code for page in pages for tag in page.tags} <= allowed


def test_colours_are_not_swapped_and_chroma_is_whole(tmp_path):
    """One-pixel stripes of pure colours: chroma subsampling would mix them."""
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[:, ::2], rgb[:, 1::2] = (220, 30, 40), (40, 30, 220)
    write_slide(tmp_path / "a.svs", rgb, mpp=0.5, objective_power=20, quality=95)
    for read in (
        np.asarray(openslide.OpenSlide(tmp_path / "a.svs").read_region((0, 0), 0, (256, 256))),
        tifffile.imread(tmp_path / "a.svs"),
    ):
        assert np.abs(read[..., :3].astype(int) - rgb).max() < 30


def test_blank_tiles_are_stored_once(written):
    path, _ = written
    with tifffile.TiffFile(path) as tiff:
        offsets, counts = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    assert min(counts) > 0
    shared = [offset for offset in set(offsets) if offsets.count(offset) > 1]
    assert len(shared) == 1
    assert offsets.count(shared[0]) >= 20


@pytest.mark.parametrize(
    "size", [(1, 1), (100, 80), (1024, 1024), (1030, 1027), (2049, 3), (4100, 260)]
)
def test_any_size(tmp_path, size):
    rgb = textured(*size)
    write_slide(tmp_path / "a.svs", rgb, mpp=0.25, objective_power=None)
    with openslide.OpenSlide(tmp_path / "a.svs") as slide:
        assert slide.dimensions == size
        assert "openslide.objective-power" not in slide.properties
        assert max(slide.level_dimensions[-1]) <= 1024 or min(size) < 4
        for level, (width_px, height_px) in enumerate(slide.level_dimensions):
            assert (width_px, height_px) == (size[0] // 4**level, size[1] // 4**level)
            read = np.asarray(slide.read_region((0, 0), level, (width_px, height_px)))
            assert (read[..., 3] == 255).all()
        read = np.asarray(slide.read_region((0, 0), 0, size))[..., :3]
    assert np.abs(read.astype(int) - rgb).mean() < 1.5


def test_bytes_depend_neither_on_threads_nor_on_write_slide(tmp_path):
    rgb = textured(1500, 1250)
    contents = []
    for threads in (1, 3):
        path = tmp_path / f"{threads}.svs"
        with PyramidWriter(path, tmp_path / "w", small_spec(), key="", threads=threads) as writer:
            write_blocks(writer, rgb)
            writer.finish()
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


CHILD = """
import sys; sys.path[:0] = {paths!r}
import stainfuser.io.pyramid_writer as module
from test_pyramid_writer import small_spec, textured, write_blocks
module.SYNC_EVERY_S = {sync_s}
rgb = textured(1500, 1250)
with module.PyramidWriter({path!r}, {work!r}, small_spec(), key="k") as writer:
    print("ready", writer.blocks_done, flush=True)
    write_blocks(writer, rgb, pause_s=0.02)
    writer.finish()
"""


def start_child(folder: Path, sync_s: float) -> subprocess.Popen:
    here = Path(__file__).parent
    paths = [str(here.parents[1] / "scripts"), str(here)]
    code = CHILD.format(
        paths=paths, sync_s=sync_s, path=str(folder / "a.svs"), work=str(folder / "work")
    )
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15])
def test_killed_at_any_moment_the_result_is_the_same(tmp_path, delay_s):
    whole = tmp_path / "whole.svs"
    with PyramidWriter(whole, tmp_path / "w", small_spec(), key="k") as writer:
        write_blocks(writer, textured(1500, 1250))
        writer.finish()
    killed = 0
    for _ in range(2):
        child = start_child(tmp_path, sync_s=0.0)
        child.stdout.readline()
        time.sleep(delay_s)
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert killed
    if not (tmp_path / "a.svs").exists():
        with PyramidWriter(tmp_path / "a.svs", tmp_path / "work", small_spec(), key="k") as writer:
            write_blocks(writer, textured(1500, 1250))
            assert writer.notes == list(range(len(writer.blocks)))
            writer.finish()
    assert (tmp_path / "a.svs").read_bytes() == whole.read_bytes()


def break_file(path: Path, offset: int) -> None:
    with open(path, "r+b") as handle:
        handle.seek(offset, os.SEEK_END)
        handle.write(b"broken")


# What a crash may leave behind → blocks of 27 that are whole, 20 of them forced to disk.
CRASHES = {
    "nothing": (lambda work: None, 27),
    "a torn line": (lambda work: os.truncate(work / "journal", -20 + size(work / "journal")), 26),
    "half a line more": (lambda work: append(work / "journal", b"0000 {torn"), 27),
    "bytes more": (lambda work: append(work / "slide.partial", b"garbage"), 27),
    "bytes that never reached the disk": (lambda work: break_file(work / "slide.partial", -9), 26),
    "a file cut short": (
        lambda work: os.truncate(work / "slide.partial", size(work / "slide.partial") - 9),
        26,
    ),
    "reduced pixels that never reached the disk": (lambda work: zero_raw(work), 22),
}


def size(path: Path) -> int:
    return path.stat().st_size


def append(path: Path, content: bytes) -> None:
    with open(path, "ab") as handle:
        handle.write(content)


def zero_raw(work: Path) -> None:
    """Lose the reduced pixels of block 22: row 3, column 4 of the blocks."""
    for row in range(3 * 64, 4 * 64):
        with open(work / "level1.raw", "r+b") as handle:
            handle.seek(3 * (row * 375 + 4 * 64))
            handle.write(bytes(3 * 64))


@pytest.mark.parametrize("crash", CRASHES)
def test_resume_goes_on_behind_the_last_whole_block(tmp_path, crash):
    rgb = textured(1500, 1250)
    damage, expected = CRASHES[crash]
    with PyramidWriter(tmp_path / "b.svs", tmp_path / "w", small_spec(), key="k") as writer:
        write_blocks(writer, rgb)
        writer.finish()
    work = tmp_path / "work"
    with PyramidWriter(tmp_path / "a.svs", work, small_spec(), key="k") as writer:
        write_blocks(writer, rgb, stop=20)
        writer.sync()
        write_blocks(writer, rgb, stop=7)
    damage(work)
    with PyramidWriter(tmp_path / "a.svs", work, small_spec(), key="k", threads=2) as writer:
        assert writer.blocks_done == expected
        write_blocks(writer, rgb)
        writer.finish()
    assert (tmp_path / "a.svs").read_bytes() == (tmp_path / "b.svs").read_bytes()


@pytest.mark.parametrize("deleted", ["slide.partial", "level1.raw"])
def test_deleted_work_files_mean_a_new_start(tmp_path, deleted):
    with PyramidWriter(tmp_path / "a.svs", tmp_path / "w", small_spec(), key="k") as writer:
        write_blocks(writer, textured(1500, 1250), stop=5)
        writer.sync()
    (tmp_path / "w" / deleted).unlink()
    with PyramidWriter(tmp_path / "a.svs", tmp_path / "w", small_spec(), key="k") as writer:
        assert writer.blocks_done == 0


def test_work_of_another_key_or_layout_is_thrown_away(tmp_path):
    for key, spec, expected in (
        ("k", small_spec(), 0),
        ("k", small_spec(), 5),
        ("other", small_spec(), 0),
        ("other", small_spec(quality=80), 0),
    ):
        with PyramidWriter(tmp_path / "a.svs", tmp_path / "w", spec, key=key) as writer:
            assert writer.blocks_done == expected
            write_blocks(writer, textured(1500, 1250), stop=5 - expected)
            writer.sync()


def test_an_unfinished_file_opens_nowhere(tmp_path):
    with PyramidWriter(tmp_path / "a.svs", tmp_path / "w", small_spec(), key="k") as writer:
        write_blocks(writer, textured(1500, 1250), stop=30)
        writer.sync()
    with pytest.raises(openslide.OpenSlideError):
        openslide.OpenSlide(tmp_path / "w" / "slide.partial")


def test_wrong_blocks_are_refused(tmp_path):
    with PyramidWriter(tmp_path / "a.svs", tmp_path / "w", small_spec(), key="k") as writer:
        first, second = writer.blocks[:2]
        with pytest.raises(ValueError, match="block 1 written where 0"):
            writer.write(second, np.zeros((256, 256, 3), np.uint8))
        with pytest.raises(ValueError, match="shape"):
            writer.write(first, np.zeros((200, 256, 3), np.uint8))
        with pytest.raises(ValueError, match="missing"):
            writer.finish()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path, work in (
        (tmp_path / "file/a.svs", tmp_path / "w"),
        (tmp_path / "a.svs", tmp_path / "file/w"),
    ):
        with pytest.raises(InputError, match=r"cannot be written to .*; give a folder"):
            PyramidWriter(path, work, small_spec(), key="k")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_one_sentence(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="permission denied"):
        write_slide(tmp_path / "a.svs", textured(64, 64), mpp=0.5, objective_power=20)


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    with PyramidWriter(tmp_path / "a.svs", tmp_path / "w", small_spec(), key="k") as writer:

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(InputError, match="the disk is full; free some space"):
            write_blocks(writer, textured(1500, 1250), stop=1)
    assert not (tmp_path / "a.svs").exists()


def test_a_damaged_result_gets_no_final_name(tmp_path, monkeypatch):
    monkeypatch.setattr("stainfuser.io.pyramid_writer.encode_directories", lambda *_: b"\0" * 64)
    with pytest.raises((RuntimeError, openslide.OpenSlideError)):
        write_slide(tmp_path / "a.svs", textured(600, 600), mpp=0.5, objective_power=20)
    assert list(tmp_path.iterdir()) == []


def test_blocks_cover_the_slide_once():
    seen = np.zeros((1250, 1500), int)
    for number, block in enumerate(plan_blocks(1500, 1250, 256)):
        assert block.index == number
        seen[
            block.y_px : block.y_px + block.height_px, block.x_px : block.x_px + block.width_px
        ] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(
    "changes",
    [{"mpp": 0.0}, {"mpp": float("nan")}, {"width_px": 0}, {"tile_px": 100}, {"block_px": 300}],
)
def test_impossible_specs_are_refused(changes):
    with pytest.raises(ValueError):
        small_spec(**changes)


def test_journal_keeps_whole_records_only(tmp_path):
    path = tmp_path / "journal"
    with Journal(path, "k") as journal:
        journal.add({"a": 1})
        journal.add({"a": 2})
        journal.keep(1)
    with Journal(path, "k") as journal:
        assert journal.records == [{"a": 1}]
        journal.add({"a": 3})
    content = path.read_bytes()
    path.write_bytes(content.replace(b'{"a":3}', b'{"a":4}'))
    with Journal(path, "k") as journal:
        assert journal.records == [{"a": 1}]
        journal.keep(0)
        journal.add({"a": 5})
    with Journal(path, "k") as journal:
        assert journal.records == [{"a": 5}]
    with Journal(path, "other") as journal:
        assert journal.records == []


def test_jpeg_is_reproducible():
    rgb = textured(64, 64)
    assert encode_jpeg(rgb, 90) == encode_jpeg(rgb.copy(), 90)
