"""Read damaged slides: what cannot be decoded is filled with one colour and written down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.io.regions import Level, RegionReader
from stainfuser.io.slides import CorruptRegionError, SlideReader

# Damage is narrowed down to squares of this side (or the next larger power-of-two part).
SMALLEST_PX = 64

Rectangle = tuple[int, int, int, int]


class FillingReader(RegionReader):
    """A `SlideReader` that never fails on a corrupt tile.

    Parameters
    ----------
    reader
        The slide.
    colour
        RGB in [0, 255] that stands for what cannot be decoded.
    """

    def __init__(self, reader: SlideReader, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
        self._reader = reader
        self.colour = colour
        self._filled: set[Rectangle] = set()

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels, the full size first."""
        return self._reader.levels

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 px."""
        return self._reader.mpp

    @property
    def tile_px(self) -> tuple[int, int] | None:
        """Tiles that level 0 is best read in, px."""
        return self._reader.tile_px

    def close(self) -> None:
        """Close the slide."""
        self._reader.close()

    def check_unchanged(self) -> None:
        """Raise `SlideError` if the slide's file changed since it was opened."""
        self._reader.check_unchanged()

    def read_rgbx(self, x_px: int, y_px: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with level 0, and what cannot be decoded with the colour."""
        try:
            self._reader.read_rgbx(x_px, y_px, out)
        except CorruptRegionError:
            super().read_rgbx(x_px, y_px, out)

    def take_filled(self, x_px: int, y_px: int, width_px: int, height_px: int) -> list[Rectangle]:
        """Return, in order, the level-0 rectangles filled so far that begin inside an area.

        Each is (x_px, y_px, width_px, height_px).
        """
        right, bottom = x_px + width_px, y_px + height_px
        inside = [r for r in self._filled if x_px <= r[0] < right and y_px <= r[1] < bottom]
        return sorted(inside, key=lambda r: (r[1], r[0], r[3], r[2]))

    def _fetch(
        self, x_px: int, y_px: int, width_px: int, height_px: int, level: int
    ) -> Image.Image:
        try:
            return self._reader._fetch(x_px, y_px, width_px, height_px, level)
        except CorruptRegionError:
            if max(width_px, height_px) <= SMALLEST_PX:
                return self._fill(x_px, y_px, width_px, height_px, level)
        whole = Image.new("RGBA", (width_px, height_px))
        downsample = self.levels[level].downsample
        half = _half(max(width_px, height_px))
        for top in range(0, height_px, half):
            for left in range(0, width_px, half):
                origin = (x_px + round(left * downsample), y_px + round(top * downsample))
                size = (min(half, width_px - left), min(half, height_px - top))
                whole.paste(self._fetch(*origin, *size, level), (left, top))
        return whole

    def _fill(self, x_px: int, y_px: int, width_px: int, height_px: int, level: int) -> Image.Image:
        if level == 0:
            self._filled.add((x_px, y_px, width_px, height_px))
        return Image.new("RGBA", (width_px, height_px), (*self.colour, 255))


def _half(side_px: int) -> int:
    """Return the largest power of two times `SMALLEST_PX` below `side_px`."""
    half = SMALLEST_PX
    while 2 * half < side_px:
        half *= 2
    return half
