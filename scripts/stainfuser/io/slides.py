"""Whole-slide images through OpenSlide, without its traps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide
from numpy.typing import NDArray
from PIL import Image

from stainfuser.errors import SlideError
from stainfuser.io.colour_profile import without_words
from stainfuser.io.regions import Level, RegionReader
from stainfuser.io.tile_level import Cut, DamagedTileError
from stainfuser.io.tiled_tiff import VENDORS, TiledTiff

MIN_MPP, MAX_MPP = 0.05, 20.0
"""Plausible micrometres per level-0 px: 200x to 0.5x."""

Rectangle = tuple[int, int, int, int, int]
"""x_px, y_px (level-0 px), width_px, height_px, level."""

FileState = tuple[int, int]
"""Bytes, and nanoseconds at the last change."""

_SMALLEST_PART_PX = 64  # tiles of slides are 240 px or more

MPP_REMEDY = (
    "say it in the column mpp of the slide table, or for all such slides with the configuration "
    "key mpp, e.g. --config mpp=0.25"
)


class CorruptRegionError(SlideError):
    """A rectangle of a slide cannot be decoded; other rectangles of it can be.

    `rectangle` says which.
    """

    def __init__(self, where: object, rectangle: Rectangle) -> None:
        x_px, y_px, width_px, height_px, level = rectangle
        wrong = (
            f"level {level} cannot be decoded at x {x_px}, y {y_px} "
            f"({width_px} x {height_px} px), the file is damaged there"
        )
        super().__init__(where, "corrupt", wrong, "copy or download the slide again")
        self.rectangle = rectangle


class SlideReader(RegionReader):
    """One whole-slide image, opened at the first read and once per process.

    Parameters
    ----------
    path
        A file OpenSlide can read.
    mpp_override
        Micrometres per level-0 px, in place of what the slide says.
    fill_corrupt
        Leave places that cannot be decoded transparent (white as RGB) and list them in
        `corrupt_regions`, in place of raising.
    fast
        Decode tiles of TIFF slides directly where that gives the same pixels; False: OpenSlide
        reads everything.

    Raises
    ------
    SlideError
        At the first access: the file is missing, empty, a directory or not a slide. Reading
        raises `CorruptRegionError`; the reader stays usable for other rectangles.
    """

    def __init__(
        self,
        path: str | Path,
        mpp_override: float | None = None,
        *,
        fill_corrupt: bool = False,
        fast: bool = True,
    ) -> None:
        self.path = Path(path)
        self.corrupt_regions: list[Rectangle] = []
        self._fill_corrupt = fill_corrupt
        self._mpp_override = mpp_override
        self._handle: openslide.OpenSlide | None = None
        self._pid = 0
        self._use_tiles = fast
        self._state: FileState | None = None
        self._tiles: TiledTiff | None = None

    @property
    def handle(self) -> openslide.OpenSlide:
        """The open slide of this process: a handle inherited through a fork is not shared."""
        if self._handle is None or self._pid != os.getpid():
            self._handle, self._pid = open_slide(self.path), os.getpid()
            self._state = self._state or file_state(self.path)
        return self._handle

    @property
    def tiles(self) -> TiledTiff | None:
        """The slide's tiles, or None where OpenSlide has to read it."""
        if self._use_tiles and self._tiles is None:
            check_slide_file(self.path)
            self._tiles = TiledTiff(self.path) if self.vendor in VENDORS else None
            self._use_tiles = self._tiles is not None and bool(self._tiles.levels)
        return self._tiles if self._use_tiles else None

    @property
    def tile_px(self) -> tuple[int, int] | None:
        """Width and height of the tiles of level 0, px, where they are decoded directly."""
        level = self.tiles and self.tiles.levels.get(0)
        return (level.tile_width_px, level.tile_height_px) if level else None

    @property
    def levels(self) -> tuple[Level, ...]:
        """Levels, the full size first."""
        sizes, downsamples = self.handle.level_dimensions, self.handle.level_downsamples
        return tuple(
            Level(width, height, float(down))
            for (width, height), down in zip(sizes, downsamples, strict=True)
        )

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 px; `SlideError` where the slide does not say it plausibly."""
        if self._mpp_override is not None:
            return self._mpp_override
        return plausible_mpp(self.path.name, self.handle.properties)

    @property
    def objective_power(self) -> float | None:
        """Magnification of the objective, e.g. 20, if the slide says it."""
        return _number(self.handle.properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER)

    @property
    def vendor(self) -> str:
        """OpenSlide's name of the format, e.g. "aperio"."""
        return self.handle.properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")

    @property
    def icc_profile(self) -> bytes | None:
        """The embedded colour profile (never applied here) without its words, if there is one."""
        profile = self.handle.color_profile
        return without_words(profile.tobytes()) if profile is not None else None

    def close(self) -> None:
        """Close the handle; a later read opens it again."""
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None
        if self._tiles is not None:
            self._tiles.close()
        self._tiles = None

    def check_unchanged(self) -> None:
        """Raise `SlideError` if the file is not the one that was opened first."""
        if self._state is not None and file_state(self.path) != self._state:
            wrong = "the file changed while it was read"
            raise SlideError(self.path.name, "changed", wrong, "run again when it is complete")

    def read_rgbx(self, x_px: int, y_px: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` as `RegionReader.read_rgbx` does, without a copy where tiles are decoded."""
        height_px, width_px = out.shape[:2]
        right, bottom = x_px + width_px, y_px + height_px
        inside = min(x_px, y_px) >= 0 and right <= self.size_px[0] and bottom <= self.size_px[1]
        cut = self.tiles.cut(x_px, y_px, (width_px, height_px), 0) if self.tiles else None
        if cut is None or not inside:
            super().read_rgbx(x_px, y_px, out)
            return
        try:
            self.tiles.read(cut, 0, out)
        except DamagedTileError:
            super().read_rgbx(x_px, y_px, out)

    def _fetch(
        self, x_px: int, y_px: int, width_px: int, height_px: int, level: int
    ) -> Image.Image:
        cut = self.tiles.cut(x_px, y_px, (width_px, height_px), level) if self.tiles else None
        if cut is not None:
            return self._fetch_tiles(cut, (x_px, y_px, width_px, height_px, level))
        try:
            return self.handle.read_region((x_px, y_px), level, (width_px, height_px))
        except openslide.OpenSlideError:
            # The handle is dead for every later read now; the next one opens a new handle. This
            # one is not closed: another thread may be inside it.
            self._handle = None
            return self._fetch_damaged((x_px, y_px, width_px, height_px, level))

    def _fetch_tiles(self, cut: Cut, rectangle: Rectangle) -> Image.Image:
        pixels = np.empty((cut[3], cut[2], 4), np.uint8)
        try:
            self.tiles.read(cut, rectangle[4], pixels)
        except DamagedTileError:
            return self._fetch_damaged(rectangle)
        return Image.fromarray(pixels)

    def _fetch_damaged(self, rectangle: Rectangle) -> Image.Image:
        if not self._fill_corrupt:
            raise CorruptRegionError(self.path.name, rectangle)
        return self._fetch_readable(rectangle)

    def _fetch_readable(self, rectangle: Rectangle) -> Image.Image:
        """Return what can be read of a damaged rectangle by reading ever smaller parts of it."""
        x_px, y_px, width_px, height_px, level = rectangle
        filled = Image.new("RGBA", (width_px, height_px))
        half = max(width_px, height_px) // 2
        if half < _SMALLEST_PART_PX:
            self.corrupt_regions.append(rectangle)
            return filled
        downsample = self.levels[level].downsample
        for top in range(0, height_px, half):
            for left in range(0, width_px, half):
                origin = (x_px + round(left * downsample), y_px + round(top * downsample))
                size = (min(half, width_px - left), min(half, height_px - top))
                filled.paste(self._fetch(*origin, *size, level), (left, top))
        return filled


def open_slide(path: Path) -> openslide.OpenSlide:
    """Open a slide, or raise `SlideError` with the verdict that says what is in its place."""
    check_slide_file(path)
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        _check_companion(path)
        wrong = "it is not a slide format that OpenSlide can read"
        remedy = "convert it to a pyramidal TIFF, or leave it out"
        raise SlideError(path.name, "not_a_slide", wrong, remedy) from None
    except openslide.OpenSlideError as error:
        _check_companion(path)
        wrong = f"OpenSlide cannot open it ({without_paths(str(error))})"
        raise SlideError(path.name, "unreadable", wrong, "copy or download it again") from None


def _check_companion(path: Path) -> None:
    """Raise `SlideError` where the pixels of a slide lie in files that were left behind."""
    folder, suffix = path.with_suffix(""), path.suffix.lower()
    if suffix == ".mrxs" and not folder.is_dir():
        wrong = f"the folder {folder.name}, which holds its pixels, is not beside it"
        raise SlideError(path.name, "no_companion", wrong, "copy the folder there, too")
    if suffix not in (".vms", ".vmu"):
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    named = [line.partition("=")[2] for line in lines if line.startswith(("ImageFile", "MapFile"))]
    for name in filter(None, map(str.strip, named)):
        if not (path.parent / name).is_file():
            wrong = f"the file {without_paths(name)}, which holds its pixels, is not beside it"
            raise SlideError(path.name, "no_companion", wrong, "copy all files it names there, too")


def file_state(path: Path) -> FileState:
    """Return the size and the time of change of a slide's file; `SlideError` if there is none."""
    check_slide_file(path)
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def without_paths(text: str) -> str:
    """Return a library's message without words that hold a path: products name no folders."""
    words = [word for word in text.split() if "/" not in word and "\\" not in word]
    return " ".join(words).rstrip(" :")


def check_slide_file(path: Path) -> None:
    """Raise `SlideError` unless `path` is a file with content.

    OpenSlide reports all of these as an unsupported format.
    """
    if path.is_dir():
        wrong = "it is a directory, expected a slide file"
        raise SlideError(path.name, "directory", wrong, "give the file inside it")
    if not path.exists():
        raise SlideError(path.name, "missing", "there is no such file", "check the path")
    if path.stat().st_size == 0:
        remedy = "copy or download it again"
        raise SlideError(path.name, "empty", "the file is empty (0 bytes)", remedy)


def plausible_mpp(where: str, properties: Mapping[str, str]) -> float:
    """Return the micrometres per level-0 px that a slide's properties state, if plausible.

    Raises
    ------
    SlideError
        Verdict no_mpp where there is none, where it lies outside 0.05 to 20 um, or where x and y
        differ by more than 5 %.
    """
    mpp_x = _number(properties, openslide.PROPERTY_NAME_MPP_X)
    mpp_y = _number(properties, openslide.PROPERTY_NAME_MPP_Y)
    if mpp_x is None or mpp_y is None:
        wrong = "it does not say its resolution (micrometres per px)"
        power = _number(properties, openslide.PROPERTY_NAME_OBJECTIVE_POWER)
        if power:
            wrong += f"; an objective of {power:g}x usually gives about {10 / power:g}"
        raise SlideError(where, "no_mpp", wrong, MPP_REMEDY)
    if not is_plausible_mpp(mpp_x) or not is_plausible_mpp(mpp_y):
        wrong = f"it states {mpp_x:g} x {mpp_y:g} um per px, expected {MIN_MPP} to {MAX_MPP:g}"
        raise SlideError(where, "no_mpp", wrong, MPP_REMEDY)
    if abs(mpp_x - mpp_y) > 0.05 * max(mpp_x, mpp_y):
        wrong = f"it states {mpp_x:g} um per px along x but {mpp_y:g} along y"
        raise SlideError(where, "no_mpp", wrong, MPP_REMEDY)
    return (mpp_x + mpp_y) / 2


def is_plausible_mpp(mpp: float) -> bool:
    """Return whether `mpp` lies in the range of microscopes (not for nan or infinity)."""
    return MIN_MPP <= mpp <= MAX_MPP


def _number(properties: Mapping[str, str], key: str) -> float | None:
    try:
        return float(properties[key])
    except (KeyError, ValueError):
        return None
