"""Blocks are cut along the source's tiles, painted into memory used again, glass before tissue."""

from __future__ import annotations

import re
import threading
import time

import numpy as np
import pytest

from slide_files import tissue_picture
from stainfuser.diffusion.changes import FEW_PX, OperatorChange, Piece
from stainfuser.diffusion.painting import SlidePainter, cut_block, paint_ahead, paint_slide
from stainfuser.diffusion.planned_change import PlannedChange
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.io.pyramid_writer import PyramidWriter, write_slide
from stainfuser.io.slide_layout import Block, SlideSpec, plan_blocks
from stainfuser.io.slides import SlideReader
from stainfuser.stain.operators import fit_operator

SIDE_PX = 1024


class Darker:
    """Takes ten levels of grey from whatever has weight."""

    def prepare(self, block):
        pass

    def apply(self, piece, rgbx, weight):
        rgbx[..., :3] -= np.minimum(rgbx[..., :3], (10 * (weight > 0)).astype(np.uint8)[..., None])


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "a.svs"
    write_slide(path, tissue_picture(SIDE_PX), mpp=0.5, objective_power=20)
    with SlideReader(path) as reader:
        return path, reader.read(0, 0, SIDE_PX, SIDE_PX)


def half_tissue() -> SlideView:
    """The lower half is tissue."""
    weight = np.zeros((64, 64), np.uint8)
    weight[32:] = 255
    return SlideView(SIDE_PX, SIDE_PX, 0.5, 0.5, weight)


@pytest.mark.parametrize("tile_px", [None, (256, 256), (240, 240), (128, 512), (512, 3000)])
def test_pieces_cover_a_block_once_and_follow_the_tiles(tile_px):
    block = Block(3, 2048, 4096, 2048, 1500)
    seen = np.zeros((1500, 2048), int)
    for piece in cut_block(block, tile_px):
        assert piece.width_px > 0 and piece.height_px > 0
        rows = slice(piece.y_px - 4096, piece.y_px - 4096 + piece.height_px)
        seen[rows, piece.x_px - 2048 : piece.x_px - 2048 + piece.width_px] += 1
        for start, side, origin in (
            (piece.x_px, (tile_px or (512, 512))[0], 2048),
            (piece.y_px, (tile_px or (512, 512))[1], 4096),
        ):
            assert start == origin or start % side == 0
    assert (seen == 1).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_memory_is_used_again_and_blocks_stay_whole(slide, threads):
    path, picture = slide
    painter = SlidePainter(lambda: SlideReader(path), half_tissue(), None, threads)
    places = set()
    for block, pixels, holes in paint_ahead(painter, plan_blocks(SIDE_PX, SIDE_PX, 256), threads):
        rows = slice(block.y_px, block.y_px + 256)
        assert np.array_equal(pixels[..., :3], picture[rows, block.x_px : block.x_px + 256])
        assert holes == []
        places.add(pixels.__array_interface__["data"][0])
    painter.close()
    assert len(places) == min(threads, 2)


@pytest.mark.parametrize("threads", [1, 2])
def test_glass_is_written_while_the_change_is_planned(slide, tmp_path, threads):
    path, picture = slide
    view, go_on, seen = half_tissue(), threading.Event(), []

    def plan():
        assert threads == 1 or go_on.wait(20)
        return Darker()

    spec = SlideSpec(SIDE_PX, SIDE_PX, 0.5, 20.0, quality=100, block_px=256)
    change = PlannedChange(plan, ahead=threads > 1)
    with PyramidWriter(
        tmp_path / "b.svs", tmp_path / "w", spec, key="", threads=threads, is_early=view.is_glass
    ) as writer:
        write = writer.write

        def watched(block, *given, **more):
            write(block, *given, **more)
            seen.append(block.y_px)
            if len(seen) == 4:  # the row of glass that touches no tissue, and half of the slide
                go_on.set()

        writer.write = watched
        painter = SlidePainter(lambda: SlideReader(path), view, change, threads)
        paint_slide("a", painter, writer, threads)
        change.close()
        painter.close()
        writer.finish()
    assert len(seen) == 16
    with SlideReader(tmp_path / "b.svs") as reader:
        result = reader.read(0, 0, SIDE_PX, SIDE_PX).astype(int)
    assert np.abs(result[:480] - picture[:480]).max() <= 3
    assert np.abs(result[560:] - (picture[560:].astype(int) - 10)).mean() < 1.5


def test_a_plan_that_fails_fails_the_slide(slide, tmp_path):
    path, _ = slide

    def plan():
        raise ValueError("no plan today")

    view = half_tissue()
    for ahead in (True, False):
        change = PlannedChange(plan, ahead=ahead)
        painter = SlidePainter(lambda: SlideReader(path), view, change, 2)
        blocks = plan_blocks(SIDE_PX, SIDE_PX, 256, view.is_glass)
        with pytest.raises(ValueError, match="no plan today"):
            for _ in paint_ahead(painter, blocks, 2):
                pass
        change.close()
        painter.close()


def test_a_slide_without_tissue_never_asks_for_the_change(slide):
    path, _ = slide
    view = SlideView(SIDE_PX, SIDE_PX, 0.5, 0.5, np.zeros((64, 64), np.uint8))
    change = PlannedChange(lambda: pytest.fail("asked"), ahead=False)
    painter = SlidePainter(lambda: SlideReader(path), view, change, 2)
    assert len(list(paint_ahead(painter, plan_blocks(SIDE_PX, SIDE_PX, 512), 2))) == 4
    painter.close()


@pytest.mark.parametrize("weight", [255, 128, 0])
def test_few_pixels_and_many_are_mapped_alike(weight):
    """Interpolated for a tile, looked up for a slide: to one level of grey."""
    white = np.array([243.0, 241.0, 243.0])
    rng = np.random.default_rng(0)
    od = rng.uniform(0.05, 1.5, (500, 3))
    operator = fit_operator(od, 0.8 * od + 0.05 * od**2, white)
    picture = tissue_picture(512)
    results = []
    for size_px in (1, FEW_PX):
        rgbx = np.dstack([picture, np.full(picture.shape[:2], 255, np.uint8)])
        weights = np.full(picture.shape[:2], weight, np.uint8)
        weights[200:220] = 255
        OperatorChange(operator, size_px).apply(Piece(0, 0, 512, 512), rgbx, weights)
        results.append(rgbx[..., :3].astype(int))
    assert np.abs(results[0] - results[1]).max() <= 1
    changed = np.abs(results[1] - picture).max(-1)
    assert changed[200:220].max() > 5
    assert (changed[300:] == 0).all() == (weight == 0)


def test_the_order_of_blocks_does_not_change_the_picture(tmp_path):
    rgb = tissue_picture(900)
    spec = SlideSpec(900, 900, 0.5, 20.0, block_px=256)
    pictures = []
    for is_early in (None, lambda x, y, *_: (x + y) % 512 == 0):
        with PyramidWriter(
            tmp_path / "a.svs", tmp_path / "w", spec, key="", is_early=is_early
        ) as writer:
            assert [block.index for block in writer.blocks] == list(range(16))
            for block in writer.remaining():
                rows = rgb[block.y_px : block.y_px + block.height_px]
                writer.write(block, rows[:, block.x_px : block.x_px + block.width_px])
            writer.finish()
        with SlideReader(tmp_path / "a.svs", fast=False) as reader:
            pictures.append(reader.read(0, 0, 900, 900))
    assert np.array_equal(*pictures)


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_the_progress_says_pixels_time_left_and_rate(slide, tmp_path, capsys, seconds):
    class Slow(Darker):
        def prepare(self, block):
            time.sleep(seconds)

    painter = SlidePainter(lambda: SlideReader(slide[0]), half_tissue(), Slow(), 1)
    spec = SlideSpec(SIDE_PX, SIDE_PX, 0.5, 20.0, block_px=512)
    with PyramidWriter(tmp_path / "b.svs", tmp_path / "w", spec, key="") as writer:
        paint_slide("my slide", painter, writer, 1)
    painter.close()
    last = capsys.readouterr().err.strip().split("\r")[-1]
    assert re.match(r"my slide: 100%\|.*\| 1\.0/1\.0 MPix \[00:0\d<00:00, +[\d.]+MPix/s\]", last)
