"""Normalise one block of a slide: read it in pieces, change the tissue, leave the rest.

A piece never looks at its neighbours: all it takes from outside (the operator, the change the
model makes, the weight of the place) is a function of slide coordinates. Blocks may therefore be
of any size, and pieces may be worked on by any number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from stainfuser.diffusion.rendering import RenderedPlane
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.io.filling_reader import FillingReader, Rectangle
from stainfuser.io.regions import RegionReader
from stainfuser.io.slide_layout import Block
from stainfuser.stain.blend import glass_to_tissue, interpolate, px_centres
from stainfuser.stain.operators import ColourOperator, apply_lookup_table
from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od

PIECE_PX = 512
# A Gaussian is cut off at this many sigma.
GAUSSIAN_SIGMAS = 4.0


@dataclass(frozen=True)
class Piece:
    """A rectangle of level 0, px."""

    x_px: int
    y_px: int
    width_px: int
    height_px: int


class Change(Protocol):
    """What happens to tissue."""

    def prepare(self, block: Block) -> None:
        """Do what the pieces of a block share; called before them, in one thread."""

    def apply(
        self, piece: Piece, rgb: NDArray[np.uint8], weight: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Return the changed pixels; `weight` (H, W) uint8 says how strongly, 255 being fully."""


class OperatorChange:
    """Every pixel through one colour operator."""

    def __init__(self, operator: ColourOperator) -> None:
        self._table = operator.lookup_table()

    def prepare(self, block: Block) -> None:
        """Nothing is shared."""

    def apply(
        self, piece: Piece, rgb: NDArray[np.uint8], weight: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Mix the mapped pixels into the source by their weight."""
        mapped = apply_lookup_table(rgb, self._table)
        if weight.min() == 255:
            return mapped
        images = (Image.fromarray(array) for array in (mapped, rgb, weight))
        return np.asarray(Image.composite(*images))


class RenderedChange:
    """The change the model makes, brought from its plane to level 0.

    Parameters
    ----------
    plane, view
        Where the change comes from, and the geometry of the slide.
    white
        (3,) background colour, RGB in [0, 255]: pixels of this colour stay.
    guard_um
        Of the change only what is coarser than about this is used, so that finer detail stays the
        source's; a Gaussian of half this width. 0: the change as it is.
    """

    def __init__(
        self, plane: RenderedPlane, view: SlideView, white: NDArray[np.float64], guard_um: float
    ) -> None:
        self._plane, self._view = plane, view
        self._white_od = -np.log((np.asarray(white) + 1.0) / 256.0).astype(np.float32)
        self._sigma_px = guard_um / 2.0 / (view.mpp * view.scale)
        self._area, self._origin = np.zeros((1, 1, 3), np.float32), (0, 0)

    @staticmethod
    def margin_px(guard_um: float, plane_mpp: float) -> int:
        """Return how far the Gaussian reaches on the plane."""
        return int(GAUSSIAN_SIGMAS * guard_um / 2.0 / plane_mpp + 0.5)

    def prepare(self, block: Block) -> None:
        """Render the part of the plane that the block lies on."""
        view, reach = self._view, int(GAUSSIAN_SIGMAS * self._sigma_px + 0.5)
        spans = []
        for start, count, limit in (
            (block.y_px, block.height_px, view.plane_px[1]),
            (block.x_px, block.width_px, view.plane_px[0]),
        ):
            centres = px_centres(start, count, view.scale)
            low, high = int(np.floor(centres[0])) - reach, int(np.floor(centres[-1])) + 2 + reach
            spans.append((min(max(low, 0), limit - 1), min(max(high, 1), limit)))
        (top, bottom), (left, right) = spans
        area = self._plane.change(top, left, bottom, right)
        if self._sigma_px > 0:
            for axis in (0, 1):
                area = ndimage.gaussian_filter1d(
                    area, self._sigma_px, axis, mode="nearest", truncate=GAUSSIAN_SIGMAS
                )
        self._area, self._origin = area, (top, left)

    def apply(
        self, piece: Piece, rgb: NDArray[np.uint8], weight: NDArray[np.uint8]
    ) -> NDArray[np.uint8]:
        """Add the change in optical density, weighted by place and by colour."""
        rows = px_centres(piece.y_px, piece.height_px, self._view.scale)
        columns = px_centres(piece.x_px, piece.width_px, self._view.scale)
        change = interpolate(self._area, rows, columns, self._origin)
        od = rgb_to_od(rgb)
        strength = glass_to_tissue(od - self._white_od) * (weight.astype(np.float32) / 255.0)
        changed = od_to_rgb(od + strength[..., None] * change)
        # Where nothing is to change the way through optical density must not even round.
        changed[strength == 0] = rgb[strength == 0]
        return changed


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

    def paint(self, block: Block) -> tuple[NDArray[np.uint8], list[Rectangle]]:
        """Return the block's pixels, (H, W, 3) uint8, and the rectangles that had to be filled."""
        pieces = cut_block(block)
        weights = [self._weight(piece) for piece in pieces]
        if self._change is not None and any(weight.any() for weight in weights):
            self._change.prepare(block)
        pixels = np.empty((block.height_px, block.width_px, 3), np.uint8)
        filled: list[Rectangle] = []
        for piece, (rgb, holes) in zip(
            pieces, self._pool.map(self._paint_piece, pieces, weights), strict=True
        ):
            y, x = piece.y_px - block.y_px, piece.x_px - block.x_px
            pixels[y : y + piece.height_px, x : x + piece.width_px] = rgb
            filled += holes
        return pixels, filled

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
        self, piece: Piece, weight: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], list[Rectangle]]:
        reader = self._reader()
        box = (piece.x_px, piece.y_px, piece.width_px, piece.height_px)
        rgb = reader.read(*box)
        holes = reader.take_filled(*box) if isinstance(reader, FillingReader) else []
        if self._change is None or not weight.any():
            return rgb, holes
        return self._change.apply(piece, rgb, weight), holes

    def _reader(self) -> RegionReader:
        if not hasattr(self._local, "reader"):
            self._local.reader = self._open_reader()
            self._readers.append(self._local.reader)
        return self._local.reader


def cut_block(block: Block) -> list[Piece]:
    """Return the pieces of a block, in rows."""
    right, bottom = block.x_px + block.width_px, block.y_px + block.height_px
    return [
        Piece(x, y, min(PIECE_PX, right - x), min(PIECE_PX, bottom - y))
        for y in range(block.y_px, bottom, PIECE_PX)
        for x in range(block.x_px, right, PIECE_PX)
    ]


def paint_ahead(
    painter: SlidePainter, blocks: Iterable[Block], threads: int
) -> Iterator[tuple[Block, NDArray[np.uint8], list[Rectangle]]]:
    """Paint blocks in order; with threads to spare, one block ahead of the one handed out."""
    if threads < 2:
        for block in blocks:
            yield block, *painter.paint(block)
        return
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for block in blocks:
            following = (block, ahead.submit(painter.paint, block))
            if waiting:
                yield waiting[0], *waiting[1].result()
            waiting = following
        if waiting:
            yield waiting[0], *waiting[1].result()
