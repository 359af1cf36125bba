"""Tiles of a TIFF slide, decoded without OpenSlide: the same pixels, several times as fast.

OpenSlide says which levels there are and what their pixels look like; this module only takes over
where tiles it decodes itself equal what OpenSlide shows (`open_levels` compares some of every
level). It knows JPEG and deflate.
"""

from __future__ import annotations

import logging
import os
import struct
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stainfuser.io.tile_level import (
    SOI,
    Cut,
    DamagedTileError,
    DeflateCodec,
    JpegCodec,
    TileCodec,
    TileLevel,
)

LOGGER = logging.getLogger("stainfuser")
# Vendors whose level-0 px lie on one plain grid of tiles.
VENDORS = ("aperio", "generic-tiff")

_MAX_TILE_PX = 4096
_COMPARED_TILES, _TRIED_TILES = 5, 40
_JPEG, _DEFLATE, _OLD_DEFLATE = 7, 8, 32946
_RGB, _YCBCR = 2, 6
_KNOWN = {(_JPEG, _RGB), (_JPEG, _YCBCR), (_DEFLATE, _RGB), (_OLD_DEFLATE, _RGB)}
_EOI = b"\xff\xd9"
# Adobe's APP14 marker says whether the three channels are RGB (0) or YCbCr (1), else guessed.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"


class TiledTiff:
    """A slide's JPEG levels and its file; may be used by several threads, and after a fork.

    Parameters
    ----------
    path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)
        try:
            stat = os.fstat(self._handle)
            state = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            self.levels = open_levels(str(path), state)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._handle >= 0:
            os.close(self._handle)
        self._handle = -1

    def cut(self, x_px: int, y_px: int, size_px: tuple[int, int], level: int) -> Cut | None:
        """Return a rectangle (origin in level-0 px) in px of `level`; None: left to OpenSlide."""
        found = self.levels.get(level)
        if found is None or x_px % found.downsample or y_px % found.downsample:
            return None
        cut = (x_px // found.downsample, y_px // found.downsample, *size_px)
        tiles = found.touched(cut)
        # A tile without bytes has a meaning of its own in some formats.
        return None if (found.counts[tiles] == 0).any() else cut

    def read(self, cut: Cut, level: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, (height, width, 4) uint8, with RGBA of a rectangle; 0 outside of the level.

        Raises
        ------
        DamagedTileError
            A tile of it cannot be decoded.
        """
        found = self.levels[level]
        left, top, width, height = cut
        inside = left >= 0 and top >= 0
        if not (inside and left + width <= found.width_px and top + height <= found.height_px):
            out[:] = 0
        for number in found.touched(cut):
            tile = found.decode(self._handle, number)
            x, y, tile_width, tile_height = found.tile_place(number)
            x0, x1 = max(x, left), min(x + tile_width, left + width)
            y0, y1 = max(y, top), min(y + tile_height, top + height)
            part = tile[y0 - y : y1 - y, x0 - x : x1 - x]
            out[y0 - top : y1 - top, x0 - left : x1 - left] = part


@lru_cache(maxsize=4)
def open_levels(path: str, state: tuple[int, ...]) -> dict[int, TileLevel]:
    """Return the levels of a slide whose tiles decode to what OpenSlide shows, by number.

    `state` (device, inode, size, time of change) makes the answer of the same file, and of it
    alone, be remembered.
    """
    with _Shown(path) as shown:
        if shown.vendor not in VENDORS:
            return {}
        pages = _tiled_pages(path)
        levels = {}
        for number, (size_px, downsample) in enumerate(shown.levels):
            fitting = [page for page in pages if page[:2] == size_px]
            if len(fitting) == 1 and downsample.is_integer():
                page = fitting[0]
                level = _compare(TileLevel(*page[:4], int(downsample), *page[4:]), shown, number)
                if level is not None:
                    levels[number] = level
        return levels


class _Shown:
    """What OpenSlide shows of a file, through a handle of its own, which damage may spoil."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDONLY)
        self._open()
        self.vendor = self._slide.properties.get("openslide.vendor")
        sizes, downsamples = self._slide.level_dimensions, self._slide.level_downsamples
        self.levels = list(zip(sizes, map(float, downsamples), strict=True))

    def _open(self) -> None:
        import openslide

        self._slide = openslide.OpenSlide(self.path)

    def tile(self, level: TileLevel, number: int, level_number: int) -> NDArray[np.uint8] | None:
        """Return a tile, (H, W, 4) uint8 RGBA; None if OpenSlide cannot decode it."""
        import openslide

        x, y, width, height = level.tile_place(number)
        origin = (x * level.downsample, y * level.downsample)
        try:
            return np.asarray(self._slide.read_region(origin, level_number, (width, height)))
        except openslide.OpenSlideError:
            self._slide.close()
            self._open()
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._slide.close()
        os.close(self.file)


def _tiled_pages(path: str) -> list[tuple[Any, ...]]:
    """Return size, tile size, offsets, counts and stream header of every usable directory."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            return [page for page in map(_describe, tiff.pages) if page]
    except (tifffile.TiffFileError, struct.error, OSError, ValueError, IndexError, KeyError):
        return []


def _describe(page: Any) -> tuple[Any, ...] | None:
    usable = (
        page.is_tiled
        and (page.compression, page.photometric) in _KNOWN
        and page.predictor in (1, 2)
        and (page.samplesperpixel, page.bitspersample, page.planarconfig) == (3, 8, 1)
        and page.imagedepth == 1
        and max(page.tilewidth, page.tilelength) <= _MAX_TILE_PX
    )
    if not usable:
        return None
    across, down = -(-page.imagewidth // page.tilewidth), -(-page.imagelength // page.tilelength)
    offsets, counts = (np.array(v, np.int64) for v in (page.dataoffsets, page.databytecounts))
    if not len(offsets) == len(counts) == across * down:
        return None
    sizes = (page.imagewidth, page.imagelength, page.tilewidth, page.tilelength)
    return (*sizes, offsets, counts, _codec(page))


def _codec(page: Any) -> TileCodec:
    if page.compression != _JPEG:
        return DeflateCodec(page.predictor == 2)
    header = SOI + _ADOBE + bytes([page.photometric == _YCBCR])
    tables = page.jpegtables or b""
    if tables:
        header += tables[2 : tables.rfind(_EOI)]
    return JpegCodec(header)


def _compare(level: TileLevel, shown: _Shown, level_number: int) -> TileLevel | None:
    """Return the level if its tiles look as OpenSlide shows them, as far as drawn; else None."""
    lenient = replace(level, codec=replace(level.codec, strict=False))
    agreeing = 0
    for number in _spread(level, _COMPARED_TILES):
        expected = shown.tile(level, number, level_number)
        found = _decoded(lenient, number, shown.file)
        if expected is None or found is None:
            continue
        if not np.array_equal(found, expected):
            return None
        agreeing += 1
    if not agreeing:
        return None
    intact = (_decoded(level, number, shown.file) for number in _spread(level, _TRIED_TILES))
    if any(tile is not None for tile in intact):
        return level
    LOGGER.warning(
        "%s: every tile tried is out of the ordinary, so damaged ones cannot be told",
        Path(shown.path).name,
    )
    return lenient


def _spread(level: TileLevel, count: int) -> list[int]:
    """Return about `count` tiles that have bytes, evenly from all of them."""
    present = np.flatnonzero(level.counts > 0)
    places = np.linspace(0, len(present) - 1, 2 * count + 1).round().astype(int)[1::2]
    return sorted(set(present[places].tolist())) if len(present) else []


def _decoded(level: TileLevel, number: int, file: int) -> NDArray[np.uint8] | None:
    try:
        tile = level.decode(file, number)
    except DamagedTileError:
        return None
    _, _, width, height = level.tile_place(number)
    return tile[:height, :width]
