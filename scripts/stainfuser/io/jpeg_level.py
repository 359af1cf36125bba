"""Tiles of one level of a slide as JPEG streams, decoded strictly and into memory used again."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SOI = b"\xff\xd8"

Cut = tuple[int, int, int, int]
"""x, y, width, height in px of a level."""


class DamagedTileError(ValueError):
    """A tile's bytes are no complete JPEG stream of the tile's size."""


@dataclass(frozen=True, eq=False)
class JpegLevel:
    """Tiles of one level, in rows: where they lie in the file and how their streams begin.

    Attributes
    ----------
    downsample
        Level-0 px per px, a whole number.
    header
        What precedes every tile's own bytes: colour space and shared tables.
    strict
        Whether a warning of the decoder means damage. Slides whose intact tiles all raise warnings
        exist.
    """

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    downsample: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    header: bytes
    strict: bool = True

    @property
    def columns(self) -> int:
        """Tiles per row."""
        return -(-self.width_px // self.tile_width_px)

    def tile_place(self, number: int) -> Cut:
        """Return the part of the level that a tile covers."""
        x = number % self.columns * self.tile_width_px
        y = number // self.columns * self.tile_height_px
        width = min(self.tile_width_px, self.width_px - x)
        return x, y, width, min(self.tile_height_px, self.height_px - y)

    def touched(self, cut: Cut) -> list[int]:
        """Return the tiles that a rectangle touches."""
        x, y, width, height = cut
        rows = _span(y, height, self.height_px, self.tile_height_px)
        columns = _span(x, width, self.width_px, self.tile_width_px)
        return [row * self.columns + column for row in rows for column in columns]

    def decode(self, handle: int, number: int) -> NDArray[np.uint8]:
        """Return a tile, (tile height, tile width, 4) uint8 RGBA, alpha 255; valid until the next.

        Raises
        ------
        DamagedTileError
            The stream is damaged, cut off or of another size.
        """
        import simplejpeg

        count = int(self.counts[number])
        stream = os.pread(handle, count, int(self.offsets[number]))
        shape = (self.tile_height_px, self.tile_width_px, 4)
        if len(stream) < count or not stream.startswith(SOI):
            raise DamagedTileError(f"tile {number} is no whole JPEG stream")
        try:
            tile = simplejpeg.decode_jpeg(
                self.header + stream[2:], "RGBA", buffer=_scratch(shape), strict=self.strict
            )
        except ValueError as error:
            raise DamagedTileError(f"tile {number}: {error}") from None
        if tile.shape != shape:
            raise DamagedTileError(f"tile {number} is {tile.shape}, expected {shape}")
        return tile


def _span(start: int, count: int, limit: int, side: int) -> range:
    """Return the tiles of `side` px that px start… touch along an axis of `limit` px."""
    low, high = max(0, start), min(start + count, limit)
    return range(low // side, -(-high // side)) if low < high else range(0)


_local = threading.local()


def _scratch(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return this thread's buffer of a shape: fresh memory for every tile costs half a decode."""
    if getattr(_local, "shape", None) != shape:
        _local.shape, _local.buffer = shape, np.empty(shape, np.uint8)
    return _local.buffer
