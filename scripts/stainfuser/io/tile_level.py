"""Tiles of one level of a slide, decoded into memory used again by strict codecs.

Strict: what libjpeg only warns of, and a wrong checksum of deflated data, mean that the tile is
damaged. Many readers show grey smear or noise in its place.
"""

from __future__ import annotations

import os
import threading
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SOI = b"\xff\xd8"

Cut = tuple[int, int, int, int]
"""x, y, width, height in px of a level."""


class DamagedTileError(ValueError):
    """A tile's bytes are no complete stream of the tile's size."""


class TileCodec(Protocol):
    """How the tiles of a level are encoded."""

    strict: bool

    def decode(self, stream: bytes, out: NDArray[np.uint8]) -> None:
        """Fill `out`, (H, W, 4) uint8 RGBA with alpha 255; raise `ValueError` for damage."""


@dataclass(frozen=True)
class JpegCodec:
    """JPEG streams.

    Attributes
    ----------
    header
        What precedes every tile's own bytes: colour space and shared tables.
    strict
        Whether a warning of the decoder means damage. Slides whose intact tiles all raise warnings
        exist.
    """

    header: bytes
    strict: bool = True

    def decode(self, stream: bytes, out: NDArray[np.uint8]) -> None:
        """Fill `out` with a tile."""
        import simplejpeg

        if not stream.startswith(SOI):
            raise ValueError("it is no JPEG stream")
        header = self.header + stream[2:]
        tile = simplejpeg.decode_jpeg(header, "RGBA", buffer=out, strict=self.strict)
        if tile.shape != out.shape:
            raise ValueError(f"it is {tile.shape}, expected {out.shape}")


@dataclass(frozen=True)
class DeflateCodec:
    """Deflated RGB, as zlib writes it; libtiff passes over a wrong checksum.

    Attributes
    ----------
    differences
        Whether pixels are stored as differences to their left neighbours (TIFF predictor 2).
    """

    differences: bool
    strict: bool = True

    def decode(self, stream: bytes, out: NDArray[np.uint8]) -> None:
        """Fill `out` with a tile."""
        height, width, _ = out.shape
        inflate = zlib.decompressobj()
        try:
            content = inflate.decompress(stream, 3 * height * width + 64)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(content) != 3 * height * width or not inflate.eof:
            raise ValueError("it is too short or too long")
        pixels = np.frombuffer(content, np.uint8).reshape(height, width, 3)
        if self.differences:
            pixels = np.cumsum(pixels, axis=1, dtype=np.uint8)
        out[..., :3] = pixels
        out[..., 3] = 255


@dataclass(frozen=True, eq=False)
class TileLevel:
    """Tiles of one level, in rows: where they lie in the file and how they are encoded.

    Attributes
    ----------
    downsample
        Level-0 px per px, a whole number.
    offsets, counts
        Where each tile's stream lies in the file, and its bytes.
    """

    width_px: int
    height_px: int
    tile_width_px: int
    tile_height_px: int
    downsample: int
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]
    codec: TileCodec

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
        count = int(self.counts[number])
        stream = os.pread(handle, count, int(self.offsets[number]))
        tile = _scratch((self.tile_height_px, self.tile_width_px, 4))
        try:
            if len(stream) < count:
                raise ValueError("it ends too early")
            self.codec.decode(stream, tile)
        except ValueError as error:
            raise DamagedTileError(f"tile {number}: {error}") from None
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
