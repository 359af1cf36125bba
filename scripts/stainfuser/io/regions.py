"""Read any rectangle of a slide at any resolution, through whatever levels there are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.io.images import composite_on_white

PIECE_PX = 512
"""Largest side OpenSlide is asked for at once: larger reads are slower per pixel (measured)."""

_LEVEL_TOLERANCE = 1.005  # a level 2.0005 times smaller serves a request for 2.0
_LANCZOS_SUPPORT = 3
_GRID_TOLERANCE_PX = 0.1


@dataclass(frozen=True)
class Level:
    """One level of a pyramid: its size, and level-0 px per px of this level."""

    width_px: int
    height_px: int
    downsample: float


class RegionReader(ABC):
    """Rectangles of one image pyramid as arrays; a subclass says how a piece is fetched.

    Coordinates `x_px`, `y_px` are level-0 px from the top left corner; rectangles may reach over
    the edge, where pixels are transparent (RGBA) or white (RGB).
    """

    @property
    @abstractmethod
    def levels(self) -> tuple[Level, ...]:
        """Levels, the full size first."""

    @property
    @abstractmethod
    def mpp(self) -> float:
        """Micrometres per level-0 px."""

    @abstractmethod
    def _fetch(
        self, x_px: int, y_px: int, width_px: int, height_px: int, level: int
    ) -> Image.Image:
        """Return one piece as RGBA; origin in level-0 px, size in px of `level`."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; a later read opens it again."""

    def check_unchanged(self) -> None:  # noqa: B027 - most sources have nothing to check
        """Raise `SlideError` if the file changed since it was opened."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def tile_px(self) -> tuple[int, int] | None:
        """Width and height of the tiles that level 0 is best read in, px; None: any."""
        return None

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of level 0, px."""
        return self.levels[0].width_px, self.levels[0].height_px

    def read(
        self, x_px: int, y_px: int, width_px: int, height_px: int, level: int = 0
    ) -> NDArray[np.uint8]:
        """Return (height_px, width_px, 3) uint8 RGB of `level`, composited on white."""
        return np.array(composite_on_white(self._read(x_px, y_px, width_px, height_px, level)))

    def read_rgba(
        self, x_px: int, y_px: int, width_px: int, height_px: int, level: int = 0
    ) -> NDArray[np.uint8]:
        """Return (height_px, width_px, 4) uint8 RGBA; alpha 0 where the slide holds no pixels."""
        return np.array(self._read(x_px, y_px, width_px, height_px, level))

    def read_rgbx(self, x_px: int, y_px: int, out: NDArray[np.uint8]) -> None:
        """Fill `out`, (H, W, 4) uint8, from level 0: RGB composited on white; channel 3 is filler.

        Four bytes per px are what decoders, tables and encoders work on fastest.
        """
        out[..., :3] = self.read(x_px, y_px, out.shape[1], out.shape[0])
        out[..., 3] = 255

    def read_at_mpp(
        self, x_px: float, y_px: float, size_px: int | tuple[int, int], mpp: float
    ) -> NDArray[np.uint8]:
        """Return a square (or width, height) of `size_px` at `mpp`, antialiased, as RGB on white.

        The square covers `size_px * mpp / self.mpp` level-0 px from (x_px, y_px), which need not
        be whole numbers. Adjoining squares meet without a seam.
        """
        width_px, height_px = (size_px, size_px) if isinstance(size_px, int) else size_px
        scale = mpp / self.mpp
        extent = (width_px * scale, height_px * scale)
        return np.array(
            composite_on_white(self.read_scaled(x_px, y_px, *extent, (width_px, height_px)))
        )

    def thumbnail(self, max_side_px: int) -> NDArray[np.uint8]:
        """Return the whole slide as RGB on white, its longer side at most `max_side_px`."""
        return np.array(composite_on_white(self._overview(max_side_px)))

    def thumbnail_rgba(self, max_side_px: int) -> NDArray[np.uint8]:
        """Return the whole slide as RGBA, its longer side at most `max_side_px`."""
        return np.array(self._overview(max_side_px))

    def read_scaled(
        self,
        x_px: float,
        y_px: float,
        width_px: float,
        height_px: float,
        out_px: tuple[int, int],
    ) -> Image.Image:
        """Return a level-0 rectangle resampled to `out_px` (width, height), as RGBA.

        Reads the coarsest level that is not coarser than the result. Reductions over 4 are
        box-averaged piece by piece to at least twice the result first, so that memory follows the
        result and not the slide, then resampled with a Lanczos filter.
        """
        index = self._best_level(min(width_px / out_px[0], height_px / out_px[1]))
        level = self.levels[index]
        box = [value / level.downsample for value in (x_px, y_px, width_px, height_px)]
        if _is_on_grid(box, out_px):
            # No resampling, and no margin that could touch a damaged neighbour.
            return self._read(round(x_px), round(y_px), *out_px, index)
        shrink = min(box[2] / out_px[0], box[3] / out_px[1])
        factor = max(1, int(shrink / 2)) if shrink >= 4 else 1
        margin = factor * (1 + math.ceil(_LANCZOS_SUPPORT * max(1.0, shrink / factor)))
        left, right = _padded_span(box[0], box[0] + box[2], margin, factor, level.width_px)
        top, bottom = _padded_span(box[1], box[1] + box[3], margin, factor, level.height_px)
        pixels = self._read_reduced(left, top, right - left, bottom - top, index, factor)
        # In px of `pixels`; Pillow's filter also sees the margin outside the box.
        x0, y0 = (box[0] - left) / factor, (box[1] - top) / factor
        region = (x0, y0, x0 + box[2] / factor, y0 + box[3] / factor)
        region = (region[0], region[1], min(region[2], pixels.width), min(region[3], pixels.height))
        return pixels.resize(out_px, Image.Resampling.LANCZOS, box=region)

    def _overview(self, max_side_px: int) -> Image.Image:
        width_px, height_px = self.size_px
        scale = min(1.0, max_side_px / max(width_px, height_px))
        out_px = (max(1, round(width_px * scale)), max(1, round(height_px * scale)))
        return self.read_scaled(0, 0, width_px, height_px, out_px)

    def _best_level(self, downsample: float) -> int:
        fitting = [
            index
            for index, level in enumerate(self.levels)
            if level.downsample <= downsample * _LEVEL_TOLERANCE
        ]
        return max(fitting, key=lambda index: self.levels[index].downsample, default=0)

    def _read(self, x_px: int, y_px: int, width_px: int, height_px: int, level: int) -> Image.Image:
        """Read a rectangle as pieces of at most `PIECE_PX`, as RGBA."""
        if width_px <= PIECE_PX and height_px <= PIECE_PX:
            return self._fetch(x_px, y_px, width_px, height_px, level)
        downsample = self.levels[level].downsample
        whole = Image.new("RGBA", (width_px, height_px))
        for top in range(0, height_px, PIECE_PX):
            for left in range(0, width_px, PIECE_PX):
                size = (min(PIECE_PX, width_px - left), min(PIECE_PX, height_px - top))
                origin = (x_px + round(left * downsample), y_px + round(top * downsample))
                whole.paste(self._fetch(*origin, *size, level), (left, top))
        return whole

    def _read_reduced(
        self, left: int, top: int, width_px: int, height_px: int, level: int, factor: int
    ) -> Image.Image:
        """Read a rectangle (all in px of `level`), box-averaged by a whole `factor`, as RGBA."""
        downsample = self.levels[level].downsample
        step = factor * max(1, PIECE_PX // factor)
        whole = Image.new("RGBA", (-(-width_px // factor), -(-height_px // factor)))
        for y in range(0, height_px, step):
            for x in range(0, width_px, step):
                origin = (round((left + x) * downsample), round((top + y) * downsample))
                size = (min(step, width_px - x), min(step, height_px - y))
                piece = self._read(*origin, *size, level)
                whole.paste(
                    piece.reduce(factor) if factor > 1 else piece, (x // factor, y // factor)
                )
        return whole


def _is_on_grid(box: list[float], out_px: tuple[int, int]) -> bool:
    """Return whether a box is whole px of a level, as many as wanted, to a tenth of a px."""
    wanted = (round(box[0]), round(box[1]), *out_px)
    return all(abs(a - b) < _GRID_TOLERANCE_PX for a, b in zip(box, wanted, strict=True))


def _padded_span(
    start: float, stop: float, margin: int, factor: int, limit_px: int
) -> tuple[int, int]:
    """Return whole px around [start, stop) with a margin for the filter, aligned to `factor`.

    The margin ends at the slide's edge: transparent pixels there would bleed into the result.
    """
    low = math.floor((start - margin) / factor) * factor
    high = math.ceil((stop + margin) / factor) * factor
    low = max(low, min(0, math.floor(start / factor) * factor))
    high = min(high, max(limit_px, math.ceil(stop)))
    return low, max(high, low + 1)
