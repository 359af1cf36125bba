"""Layout of a slide file: its levels, blocks and TIFF directories.

What readers need (measured with OpenSlide, tifffile, libvips and Bio-Formats): directory 0 is the
full size, directory 1 a stripped thumbnail, then the reduced levels, each with a description and
NewSubfileType 0. There is no label and no macro picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser import __version__
from stainfuser.io.bigtiff import Tag, rational_tag, text_tag

# Aperio's own pyramids go down in steps of 4, which costs 7 % more pixels (steps of 2: 33 %).
STEP = 4
# The pyramid ends at the first level that is no larger than this.
SMALLEST_LEVEL_PX = 1024
SOFTWARE = f"StainFuser {__version__}"

IsEarly = Callable[[int, int, int, int], bool]
Place = tuple[int, int]
"""Where some bytes lie in the file: offset, count."""


@dataclass(frozen=True)
class SlideSpec:
    """What a slide file is, apart from its pixels.

    Attributes
    ----------
    width_px, height_px
        Size of level 0.
    mpp
        Micrometres per level-0 px.
    objective_power
        Magnification to be recorded, or None to leave it out.
    quality
        JPEG quality, 1 to 100 (always 4:4:4).
    tile_px
        Side of a tile, a multiple of 16.
    block_px
        Side of the blocks the slide arrives in, a multiple of `tile_px`.
    icc_profile
        Bytes of the colour profile to carry, or None.
    stamp
        Name → text, added to the description; no personal data.
    """

    width_px: int
    height_px: int
    mpp: float
    objective_power: float | None
    quality: int = 90
    tile_px: int = 256
    block_px: int = 2048
    icc_profile: bytes | None = None
    stamp: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.width_px, self.height_px) < 1 or not self.mpp > 0:
            raise ValueError(f"no slide: {self.width_px} x {self.height_px} px, {self.mpp} um/px")
        if self.tile_px < 16 or self.tile_px % 16 or self.block_px % self.tile_px:
            raise ValueError(f"tile_px {self.tile_px} or block_px {self.block_px}: no multiples")

    def level_sizes_px(self) -> list[tuple[int, int]]:
        """Return (width, height) of every level, full size first."""
        sizes = [(self.width_px, self.height_px)]
        while max(sizes[-1]) > SMALLEST_LEVEL_PX and min(sizes[-1]) >= STEP:
            sizes.append((sizes[-1][0] // STEP, sizes[-1][1] // STEP))
        return sizes

    def description(self, number: int, width_px: int, height_px: int) -> str:
        """Return the ImageDescription of directory `number`, in Aperio's grammar.

        Only facts from an allow-list: readers take mpp and magnification from it.
        """
        full = f"{self.width_px}x{self.height_px}"
        tile = f"({self.tile_px}x{self.tile_px})" if number != 1 else "-"
        size = full if number == 0 else f"{full} -> {width_px}x{height_px}"
        fields = [f"Aperio {SOFTWARE}\r\n{size} {tile} JPEG/RGB Q={self.quality}"]
        if self.objective_power:
            fields.append(f"AppMag = {self.objective_power:g}")
        fields.append(f"MPP = {self.mpp:.10g}")
        fields += [f"{name} = {text}" for name, text in sorted(self.stamp.items())]
        return "|".join(fields)


@dataclass(frozen=True)
class Block:
    """A rectangle of level 0, in px; `index` counts in the order of writing."""

    index: int
    x_px: int
    y_px: int
    width_px: int
    height_px: int


def plan_blocks(
    width_px: int, height_px: int, block_px: int, is_early: IsEarly | None = None
) -> list[Block]:
    """Return the blocks of a slide in the order they have to be written: in rows.

    Blocks of which `is_early` (of x_px, y_px, width_px, height_px) is true come before the others.
    """
    corners = [(x, y) for y in range(0, height_px, block_px) for x in range(0, width_px, block_px)]
    places = [(x, y, min(block_px, width_px - x), min(block_px, height_px - y)) for x, y in corners]
    if is_early is not None:
        places.sort(key=lambda place: not is_early(*place))
    return [Block(index, *place) for index, place in enumerate(places)]


def reduce_by_step(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average boxes of STEP x STEP px; what is left over at the right and bottom is dropped.

    (H, W, 3) RGB or (H, W, 4) with filler; the result has as many channels.
    """
    channels = pixels.shape[2]
    height, width = pixels.shape[0] // STEP, pixels.shape[1] // STEP
    if not height or not width:
        return np.empty((height, width, channels), np.uint8)
    pixels = np.ascontiguousarray(pixels[: height * STEP, : width * STEP])
    # Not RGBA, which Pillow would weight by its alpha.
    mode = "RGB" if channels == 3 else "RGBX"
    size = (width * STEP, height * STEP)
    return np.asarray(Image.frombuffer(mode, size, pixels, "raw", mode, 0, 1).reduce(STEP))


def tiled_directory(
    spec: SlideSpec, number: int, size_px: tuple[int, int], tiles: Sequence[Place]
) -> list[Tag]:
    """Return the directory of one level, its tiles in rows; none may be missing."""
    across, down = (-(-side_px // spec.tile_px) for side_px in size_px)
    if len(tiles) != across * down:
        raise ValueError(f"{len(tiles)} tiles for a grid of {across} x {down}")
    return [
        *_common_tags(spec, number, size_px),
        Tag(322, "long", [spec.tile_px]),
        Tag(323, "long", [spec.tile_px]),
        Tag(324, "offset", [offset for offset, _ in tiles]),
        Tag(325, "long", [count for _, count in tiles]),
    ]


def stripped_directory(
    spec: SlideSpec, size_px: tuple[int, int], rows_per_strip: int, strips: Sequence[Place]
) -> list[Tag]:
    """Return directory 1, the thumbnail."""
    return [
        *_common_tags(spec, 1, size_px),
        Tag(273, "offset", [offset for offset, _ in strips]),
        Tag(278, "long", [rows_per_strip]),
        Tag(279, "long", [count for _, count in strips]),
    ]


def _common_tags(spec: SlideSpec, number: int, size_px: tuple[int, int]) -> list[Tag]:
    px_per_cm = 1e4 / (spec.mpp * spec.width_px / size_px[0])
    tags = [
        Tag(254, "long", [0]),  # NewSubfileType: others are taken for a label or macro picture
        Tag(256, "long", [size_px[0]]),
        Tag(257, "long", [size_px[1]]),
        Tag(258, "short", [8, 8, 8]),
        Tag(259, "short", [7]),  # compression: JPEG
        Tag(262, "short", [6]),  # photometric: YCbCr
        text_tag(270, spec.description(number, *size_px)),
        Tag(277, "short", [3]),
        rational_tag(282, px_per_cm),
        rational_tag(283, px_per_cm),
        Tag(284, "short", [1]),
        Tag(296, "short", [3]),  # resolution unit: cm
        text_tag(305, SOFTWARE),
        Tag(530, "short", [1, 1]),  # no chroma subsampling
        Tag(532, "rational", [0, 1, 255, 1, 128, 1, 255, 1, 128, 1, 255, 1]),
    ]
    if number == 0 and spec.icc_profile:
        tags.append(Tag(34675, "bytes", list(spec.icc_profile)))
    return tags
