"""The JPEG tiles of a slide that `io.pyramid_writer` wrote, as they lie in the file.

Exports to other formats copy them, so that not one pixel changes and nothing is encoded again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tifffile

from stainfuser.errors import InputError
from stainfuser.io.slide_layout import SOFTWARE
from stainfuser.io.slides import SlideReader

_WRITER = SOFTWARE.partition(" ")[0]
# OpenSlide's names for what `SlideSpec.description` holds.
_STAMP_PREFIX = "aperio.StainFuser "


@dataclass(frozen=True)
class EncodedLevel:
    """One level: its size, and where the streams of its tiles lie, in rows.

    Attributes
    ----------
    downsample
        Level-0 px per px along the width.
    offsets, counts
        Of every tile's stream: place in the file and bytes. Blank tiles share one place.
    """

    path: Path
    width_px: int
    height_px: int
    tile_px: int
    downsample: float
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    def tiles(self) -> Iterator[bytes]:
        """Yield every tile's JPEG stream."""
        with open(self.path, "rb") as handle:
            for offset, count in zip(self.offsets, self.counts, strict=True):
                handle.seek(offset)
                yield handle.read(count)


@dataclass(frozen=True)
class EncodedSlide:
    """A written slide: levels from the full size down, and the facts that go with them.

    Attributes
    ----------
    mpp
        Micrometres per level-0 px.
    objective_power
        Magnification of the objective, or None.
    icc_profile
        Colour profile, or None.
    stamp
        Hashes of what made the slide, by name.
    """

    levels: tuple[EncodedLevel, ...]
    mpp: float
    objective_power: float | None
    icc_profile: bytes | None
    stamp: dict[str, str]


def read_encoded(path: str | Path) -> EncodedSlide:
    """Return the tiles of a slide written by this package.

    Raises
    ------
    InputError
        It is another kind of file, whose tiles may be of any kind.
    SlideError
        It is missing or cannot be opened.
    """
    path = Path(path)
    with SlideReader(path, fast=False) as reader:
        properties, mpp = dict(reader.handle.properties), reader.mpp
        power, profile = reader.objective_power, reader.icc_profile
    with tifffile.TiffFile(path) as tiff:
        if not str(tiff.pages[0].software).startswith(_WRITER):
            wrong = "is not a slide that this package wrote"
            raise InputError(path, wrong, "normalise it first; normalised slides are exported")
        pages = [page for number, page in enumerate(tiff.pages) if number != 1]
        levels = tuple(_level(path, page, pages[0].imagewidth) for page in pages)
    stamp = {
        key.removeprefix(_STAMP_PREFIX): value
        for key, value in properties.items()
        if key.startswith(_STAMP_PREFIX)
    }
    return EncodedSlide(levels, mpp, power, profile, stamp)


def _level(path: Path, page: tifffile.TiffPage, full_width_px: int) -> EncodedLevel:
    return EncodedLevel(
        path,
        page.imagewidth,
        page.imagelength,
        page.tilewidth,
        full_width_px / page.imagewidth,
        tuple(page.dataoffsets),
        tuple(page.databytecounts),
    )
