"""What happens to the tissue of a slide: an operator, or the change the model makes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.planning import Plan
from stainfuser.diffusion.rendering import RenderedPlane, Renderer, TileGrid, TileMemory
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.io.regions import RegionReader
from stainfuser.io.slide_layout import Block
from stainfuser.stain.blend import changeable, interpolate, px_centres
from stainfuser.stain.colour_table import ColourTable
from stainfuser.stain.operators import ColourOperator
from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od
from stainfuser.stain.structure_guard import guard_reach_px, local_change

# A table of all colours takes as long to make as interpolating these.
FEW_PX = 8_000_000


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

    def apply(self, piece: Piece, rgbx: NDArray[np.uint8], weight: NDArray[np.uint8]) -> None:
        """Change pixels, (H, W, 4) uint8 RGB and filler, in place.

        `weight` (H, W) uint8 says how strongly, 255 being fully.
        """


class OperatorChange:
    """Every pixel through one colour operator.

    Parameters
    ----------
    operator
        The map.
    size_px
        Pixels there are; a table of all colours pays from some millions on.
    """

    def __init__(self, operator: ColourOperator, size_px: int) -> None:
        lookup = operator.lookup_table()
        if size_px < FEW_PX:
            self._map = partial(_interpolate, lookup)
        else:
            nodes = np.array(lookup.table, np.float32).reshape(*lookup.size[::-1], 3)
            self._map = ColourTable(nodes).apply

    def prepare(self, block: Block) -> None:
        """Nothing is shared."""

    def apply(self, piece: Piece, rgbx: NDArray[np.uint8], weight: NDArray[np.uint8]) -> None:
        """Mix the mapped pixels into the source by their weight."""
        mapped = self._map(rgbx)
        if weight.min() == 255:
            rgbx[:] = mapped
        else:
            images = (Image.fromarray(array) for array in (mapped, rgbx, weight))
            rgbx[:] = Image.composite(*images)


def _interpolate(table: ImageFilter.Color3DLUT, rgbx: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(rgbx).filter(table))


class RenderedChange:
    """The change the model makes, brought from its plane to level 0.

    Parameters
    ----------
    plane, view
        Where the change comes from, and the geometry of the slide.
    white
        (3,) background colour, RGB in [0, 255]: pixels of this colour stay.
    guard_px
        Radius of the structure guard's windows, px of the plane; 0: the change as it is.
    """

    def __init__(
        self, plane: RenderedPlane, view: SlideView, white: NDArray[np.float64], guard_px: int
    ) -> None:
        self._plane, self._view, self._guard_px = plane, view, guard_px
        self._white_od = -np.log((np.asarray(white) + 1.0) / 256.0).astype(np.float32)
        self._slope: NDArray[np.float32] | None = None
        self._offset = np.zeros((1, 1, 3), np.float32)
        self._origin = (0, 0)

    def prepare(self, block: Block) -> None:
        """Render the part of the plane that the block lies on."""
        width_px, height_px = self._view.plane_px
        top, bottom = self._span(block.y_px, block.height_px, height_px)
        left, right = self._span(block.x_px, block.width_px, width_px)
        source_od, change = self._plane.change(top, left, bottom, right)
        self._origin = (top, left)
        if self._guard_px:
            self._slope, self._offset = local_change(source_od, change, self._guard_px)
        else:
            self._offset = change

    def _span(self, start_px: int, count_px: int, limit: int) -> tuple[int, int]:
        """Return the px of the plane that level-0 px start… need, the guard's reach included."""
        centres = px_centres(start_px, count_px, self._view.scale)
        reach = guard_reach_px(self._guard_px)
        low, high = math.floor(centres[0]) - reach, math.floor(centres[-1]) + 2 + reach
        return min(max(low, 0), limit - 1), min(max(high, 1), limit)

    def apply(self, piece: Piece, rgbx: NDArray[np.uint8], weight: NDArray[np.uint8]) -> None:
        """Add the change in optical density, weighted by place and by colour."""
        rgb = np.ascontiguousarray(rgbx[..., :3])
        rows = px_centres(piece.y_px, piece.height_px, self._view.scale)
        columns = px_centres(piece.x_px, piece.width_px, self._view.scale)
        od = rgb_to_od(rgb)
        change = interpolate(self._offset, rows, columns, self._origin)
        if self._slope is not None:
            change += interpolate(self._slope, rows, columns, self._origin) * od
        strength = changeable(od - self._white_od) * (weight.astype(np.float32) / 255.0)
        changed = od_to_rgb(od + strength[..., None] * change)
        # Where nothing is to change the way through optical density must not even round.
        np.copyto(rgbx[..., :3], changed, where=strength[..., None] != 0)


def make_change(
    plan: Plan,
    view: SlideView,
    options: NormalizeOptions,
    renderer: Callable[[], Renderer],
    reader: RegionReader,
    memory: TileMemory,
) -> Change | None:
    """Return what a plan does to tissue; None: nothing.

    `renderer` is asked for only if the plan renders; it must have learnt the slide's colours.
    `reader` reads the tiles that the model sees, and `memory` keeps what it made of them.
    """
    if plan.mode_used == "unchanged":
        return None
    if plan.mode_used == "operator":
        return OperatorChange(plan.colour_operator(), view.width_px * view.height_px)
    tile_px = options.tile_px
    guard_px = round(options.structure_guard_um / view.plane_mpp)
    reach_px = guard_reach_px(guard_px)
    plane = RenderedPlane(
        TileGrid(*view.plane_px, tile_px, options.overlap_px),
        lambda x, y: view.read_tile(reader, x, y, tile_px),
        renderer(),
        memory,
        lambda x, y: bool(view.weight_of_tile(x, y, tile_px, reach_px).any()),
    )
    return RenderedChange(plane, view, np.array(plan.background_rgb), guard_px)
