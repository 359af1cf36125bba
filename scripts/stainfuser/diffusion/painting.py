"""Normalise one block of a slide: read it in pieces, change the tissue, leave the rest.

A piece never looks at its neighbours: all it takes from outside (the operator, the change the
model makes, the weight of the place) is a function of slide coordinates. Blocks may therefore be
of any size, and pieces may be worked on by any number of threads.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, pairwise

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import Change, Piece
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.io.filling_reader import FillingReader, Rectangle
from stainfuser.io.pyramid_writer import PyramidWriter
from stainfuser.io.regions import RegionReader
from stainfuser.io.slide_layout import Block
from stainfuser.stain.blend import interpolate, px_centres

LOGGER = logging.getLogger("stainfuser")
PIECE_PX = 512
# Pixels done and left, time taken and left, and the rate, also where it is below 1 MPix/s.
PROGRESS = "{l_bar}{bar}| {n:.1f}/{total:.1f} MPix [{elapsed}<{remaining}, {rate_noinv_fmt}]"


class SlidePainter:
    """Paints blocks of one slide.

    Parameters
    ----------
    open_reader
        Opens the slide; called once per thread, as a corrupt tile spoils a handle for others.
    view, change
        The slide's geometry, and what happens to tissue; None: nothing does.
    threads
        Threads that read and change pieces.
    """

    def __init__(
        self,
        open_reader: Callable[[], RegionReader],
        view: SlideView,
        change: Change | None,
        threads: int,
    ) -> None:
        self._open_reader, self._view, self._change = open_reader, view, change
        self._local = threading.local()
        self._readers: list[RegionReader] = []
        self._pool = ThreadPoolExecutor(max(1, threads))

    def paint(
        self, block: Block, memory: NDArray[np.uint8] | None = None
    ) -> tuple[NDArray[np.uint8], list[Rectangle]]:
        """Return the block's pixels and the rectangles that had to be filled.

        Pixels are (H, W, 4) uint8, RGB and filler. They lie in `memory`, at least as many bytes, if
        it is given: fresh memory for every block costs a fifth of the time.
        """
        tile_px = self._reader().tile_px
        pieces = cut_block(block, tile_px)
        weights = list(self._pool.map(self._weight, pieces))
        if self._change is not None and any(weight.any() for weight in weights):
            self._change.prepare(block)
        shape = (block.height_px, block.width_px, 4)
        if memory is None:
            memory = np.empty(np.prod(shape), np.uint8)
        pixels = memory[: np.prod(shape)].reshape(shape)
        parts = [pixels[place_in_block(piece, block)] for piece in pieces]
        filled: list[Rectangle] = []
        for holes in self._pool.map(self._paint_piece, pieces, weights, parts):
            filled += holes
        return pixels, filled

    def check_unchanged(self) -> None:
        """Raise `SlideError` if the slide's file changed since its first pixel was read."""
        for reader in self._readers:
            reader.check_unchanged()

    def close(self) -> None:
        """End the threads and close the slide."""
        self._pool.shutdown(cancel_futures=True)
        for reader in self._readers:
            reader.close()

    def _weight(self, piece: Piece) -> NDArray[np.uint8]:
        mask = self._view.weight
        scale_x = self._view.width_px / mask.shape[1]
        scale_y = self._view.height_px / mask.shape[0]
        rows = px_centres(piece.y_px, piece.height_px, scale_y)
        columns = px_centres(piece.x_px, piece.width_px, scale_x)
        top, left = max(0, int(rows[0])), max(0, int(columns[0]))
        part = mask[top : int(rows[-1]) + 3, left : int(columns[-1]) + 3]
        if part.min() == part.max():
            return np.full((piece.height_px, piece.width_px), part.flat[0], np.uint8)
        return np.rint(interpolate(part, rows, columns, (top, left))).astype(np.uint8)

    def _paint_piece(
        self, piece: Piece, weight: NDArray[np.uint8], part: NDArray[np.uint8]
    ) -> list[Rectangle]:
        """Fill a piece's part of its block."""
        reader = self._reader()
        reader.read_rgbx(piece.x_px, piece.y_px, part)
        if self._change is not None and weight.any():
            self._change.apply(piece, part, weight)
        if not isinstance(reader, FillingReader):
            return []
        return reader.take_filled(piece.x_px, piece.y_px, piece.width_px, piece.height_px)

    def _reader(self) -> RegionReader:
        if not hasattr(self._local, "reader"):
            self._local.reader = self._open_reader()
            self._readers.append(self._local.reader)
        return self._local.reader


def cut_block(block: Block, tile_px: tuple[int, int] | None = None) -> list[Piece]:
    """Return the pieces of a block, in rows: whole tiles of the source where it has any.

    `tile_px` is the width and height of the source's tiles; a tile that two pieces share would be
    decoded twice.
    """
    wide, high = (_multiple(side) for side in tile_px or (PIECE_PX, PIECE_PX))
    columns = _spans(block.x_px, block.x_px + block.width_px, wide)
    rows = _spans(block.y_px, block.y_px + block.height_px, high)
    return [Piece(x, y, right - x, bottom - y) for y, bottom in rows for x, right in columns]


def _multiple(tile_px: int) -> int:
    return tile_px * max(1, round(PIECE_PX / tile_px))


def _spans(start: int, stop: int, step: int) -> list[tuple[int, int]]:
    """Cut start…stop at the multiples of `step`."""
    inner = range((start // step + 1) * step, stop, step)
    return list(pairwise([start, *inner, stop]))


def place_in_block(piece: Piece, block: Block) -> tuple[slice, slice]:
    """Return the rows and columns of a block's pixels that a piece covers."""
    y, x = piece.y_px - block.y_px, piece.x_px - block.x_px
    return slice(y, y + piece.height_px), slice(x, x + piece.width_px)


def paint_ahead(
    painter: SlidePainter, blocks: Sequence[Block], threads: int
) -> Iterator[tuple[Block, NDArray[np.uint8], list[Rectangle]]]:
    """Paint blocks in order; with threads to spare, one block ahead of the one handed out.

    A block's pixels are valid until the one after the next is asked for.
    """
    largest = max((4 * block.width_px * block.height_px for block in blocks), default=0)
    memory = cycle([np.empty(largest, np.uint8) for _ in range(1 if threads < 2 else 2)])
    if threads < 2:
        for block in blocks:
            yield block, *painter.paint(block, next(memory))
        return
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for block in blocks:
            following = (block, ahead.submit(painter.paint, block, next(memory)))
            if waiting:
                yield waiting[0], *waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], *waiting[1].result()


def paint_slide(slide: str, painter: SlidePainter, writer: PyramidWriter, threads: int) -> None:
    """Paint and write what is left of a slide, with a progress bar in MPix."""
    from tqdm import tqdm

    remaining = writer.remaining()
    total_px, todo_px = _count_px(writer.blocks), _count_px(remaining)
    if len(remaining) < len(writer.blocks):
        LOGGER.info("%s: going on behind %d finished blocks", slide, writer.blocks_done)
    started_s = time.monotonic()
    with tqdm(
        desc=slide,
        total=total_px,
        initial=total_px - todo_px,
        unit="MPix",
        unit_scale=1e-6,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
        bar_format=PROGRESS,
    ) as bar:
        for block, rgbx, holes in paint_ahead(painter, remaining, threads):
            writer.write(block, rgbx, note=holes)
            bar.update(block.width_px * block.height_px)
    painter.check_unchanged()
    elapsed_s = time.monotonic() - started_s
    rate = todo_px / 1e6 / elapsed_s
    LOGGER.info("%s: %.0f MPix in %.1f s, %.1f MPix/s", slide, todo_px / 1e6, elapsed_s, rate)


def _count_px(blocks: list[Block]) -> int:
    return sum(block.width_px * block.height_px for block in blocks)
