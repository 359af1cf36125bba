"""A slide as the model sees it: its plane at the model's resolution, and tiles of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stainfuser.io.regions import RegionReader

# Slides coarser than the model: enlarging them more than this shows the model only blur.
LARGEST_ENLARGEMENT = 2.0


@dataclass(frozen=True)
class SlideView:
    """The geometry of one slide, its mask and its plane.

    Attributes
    ----------
    width_px, height_px, mpp
        Level 0.
    plane_mpp
        Resolution at which the model sees the slide.
    weight
        (H, W) uint8 weight of the place (`stain.blend.soften_mask`) of the whole slide.
    """

    width_px: int
    height_px: int
    mpp: float
    plane_mpp: float
    weight: NDArray[np.uint8]

    @property
    def scale(self) -> float:
        """Level-0 px per px of the plane; exactly 1 where they differ by less than 1 %."""
        scale = self.plane_mpp / self.mpp
        return 1.0 if abs(scale - 1.0) < 0.01 else scale

    @property
    def plane_px(self) -> tuple[int, int]:
        """Width and height of the plane."""
        sides = (self.width_px, self.height_px)
        width_px, height_px = (max(1, math.floor(side / self.scale + 1e-6)) for side in sides)
        return width_px, height_px

    def is_glass(self, x_px: int, y_px: int, width_px: int, height_px: int) -> bool:
        """Return whether nothing in a rectangle of level 0 is to change."""
        return not self.weight_of_place(x_px, y_px, width_px, height_px).any()

    def read_tile(self, reader: RegionReader, x: int, y: int, tile_px: int) -> NDArray[np.uint8]:
        """Return a tile of the plane, (S, S, 3) uint8; beyond the slide it is mirrored."""
        width = min(tile_px, self.plane_px[0] - x)
        height = min(tile_px, self.plane_px[1] - y)
        mpp = reader.mpp * self.scale
        tile = reader.read_at_mpp(x * self.scale, y * self.scale, (width, height), mpp)
        missing = ((0, tile_px - height), (0, tile_px - width), (0, 0))
        return (
            np.pad(tile, missing, mode="symmetric") if width < tile_px or height < tile_px else tile
        )

    def weight_of_tile(self, x: int, y: int, tile_px: int, margin_px: int = 0) -> NDArray[np.uint8]:
        """Return the weights of the place under a tile of the plane and a margin round it."""
        rows = self._mask_span(y - margin_px, y + tile_px + margin_px, axis=0)
        columns = self._mask_span(x - margin_px, x + tile_px + margin_px, axis=1)
        return self.weight[rows, columns]

    def tissue_of_grid(self, tile_px: int) -> NDArray[np.float64]:
        """Return the share of tissue in the cells of a regular grid on the plane, as a table."""
        sums = np.zeros((self.weight.shape[0] + 1, self.weight.shape[1] + 1), np.int64)
        sums[1:, 1:] = (self.weight > 127).cumsum(0, dtype=np.int64).cumsum(1)
        (top, bottom), (left, right) = (self._mask_cells(tile_px, axis) for axis in (0, 1))
        upper, lower = (sums[rows][:, right] - sums[rows][:, left] for rows in (top, bottom))
        return (lower - upper) / ((bottom - top)[:, None] * (right - left))

    def weight_of_place(
        self, x_px: int, y_px: int, width_px: int, height_px: int
    ) -> NDArray[np.uint8]:
        """Return the weights of the place under a rectangle of level 0."""
        rows = self._mask_span(y_px / self.scale, (y_px + height_px) / self.scale, axis=0)
        columns = self._mask_span(x_px / self.scale, (x_px + width_px) / self.scale, axis=1)
        return self.weight[rows, columns]

    def _mask_cells(self, tile_px: int, axis: int) -> NDArray[np.int64]:
        """Return where the cells of a grid start and stop on the mask along an axis, (2, N)."""
        starts = range(0, self.plane_px[1 - axis], tile_px)
        spans = (self._mask_span(start, start + tile_px, axis) for start in starts)
        return np.array([span.indices(self.weight.shape[axis])[:2] for span in spans]).T

    def _mask_span(self, start: float, stop: float, axis: int) -> slice:
        per_px = self.weight.shape[axis] * self.scale / (self.height_px, self.width_px)[axis]
        # One px more on either side: the weights are interpolated.
        return slice(max(0, math.floor(start * per_px) - 1), max(0, math.ceil(stop * per_px) + 1))


def choose_plane_mpp(model_mpp: float | None, slide_mpp: float) -> float:
    """Return the resolution at which the model sees a slide, um per px.

    That of the model; its own if the model's is unknown; and for very coarse slides half of
    theirs, as enlarging them further shows the model only blur.
    """
    if model_mpp is None:
        return slide_mpp
    return max(model_mpp, slide_mpp / LARGEST_ENLARGEMENT)


def draw_tiles(
    view: SlideView, tile_px: int, count: int, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Draw corners (x, y) on the plane of `count` tissue tiles spread over the slide.

    Candidates are the cells of a regular grid that are at least half tissue; where these are few,
    the cells with most tissue. In reading order they are divided into `count` equal runs, and one
    is drawn from each.
    """
    width, height = view.plane_px
    cells = [(x, y) for y in range(0, height, tile_px) for x in range(0, width, tile_px)]
    tissue = view.tissue_of_grid(tile_px).ravel()
    # Where the slide ends within a cell, mirrored pixels would count twice.
    inside = np.array(
        [min(1.0, (width - x) / tile_px) * min(1.0, (height - y) / tile_px) for x, y in cells]
    )
    share = tissue * inside
    candidates = np.flatnonzero(share >= 0.5)
    if len(candidates) < count:
        best = np.argsort(-share, kind="stable")[:count]
        candidates = np.sort(best[share[best] > 0.0])
    runs = np.array_split(candidates, min(count, len(candidates)) or 1)
    return [cells[int(rng.choice(run))] for run in runs if len(run)]
