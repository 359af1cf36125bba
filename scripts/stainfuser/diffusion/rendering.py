"""Run the model over a slide: tiles on a grid that is fixed in slide coordinates.

The *plane* is the slide at the model's resolution. Tiles lie on a regular grid of it, overlap, and
are blended with weights that add up to one everywhere (`stain.blend.feather`). What is blended is
the *change* in optical density, so that a slide of finer resolution keeps its own detail and gets
the change upsampled. Nothing here knows the blocks a slide is written in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stainfuser.seeds import generator
from stainfuser.stain.blend import feather
from stainfuser.stain.optical_density import rgb_to_od

BATCH_SIZE = 8
# Side of the cells the noise field is drawn in, latents.
NOISE_CELL = 64
Tile = tuple[int, int]
"""Row and column of a tile."""


class TileMemory(Protocol):
    """Where rendered tiles are kept for the next block (`io.tile_cache.TileCache`)."""

    def get(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """Return a tile or None."""

    def put(self, row: int, column: int, tile: NDArray[np.uint8]) -> None:
        """Keep a tile."""

    def drop_rows_before(self, row: int) -> None:
        """Forget tiles that no later block needs."""


class TilesInMemory:
    """A `TileMemory` for what is small."""

    def __init__(self) -> None:
        self._tiles: dict[Tile, NDArray[np.uint8]] = {}

    def get(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """Return a tile or None."""
        return self._tiles.get((row, column))

    def put(self, row: int, column: int, tile: NDArray[np.uint8]) -> None:
        """Keep a tile."""
        self._tiles[row, column] = tile

    def drop_rows_before(self, row: int) -> None:
        """Forget tiles that no later block needs."""
        self._tiles = {key: tile for key, tile in self._tiles.items() if key[0] >= row}


@dataclass(frozen=True)
class TileGrid:
    """Tiles on a plane of `width_px` x `height_px`, all in px of the model's resolution."""

    width_px: int
    height_px: int
    tile_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap_px <= self.tile_px // 2:
            raise ValueError(f"overlap {self.overlap_px} px of tiles of {self.tile_px} px")

    @property
    def stride_px(self) -> int:
        """Distance of neighbouring tiles."""
        return self.tile_px - self.overlap_px

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self._count(self.height_px), self._count(self.width_px)

    def _count(self, extent_px: int) -> int:
        return max(1, math.ceil((extent_px - self.overlap_px) / self.stride_px))

    def touching(self, top: int, left: int, bottom: int, right: int) -> list[Tile]:
        """Return the tiles that reach into an area of the plane, in rows."""
        rows = self._span(top, bottom, self.shape[0])
        return [(row, col) for row in rows for col in self._span(left, right, self.shape[1])]

    def _span(self, start: int, stop: int, count: int) -> range:
        first = (start - self.tile_px) // self.stride_px + 1
        last = -(-stop // self.stride_px) - 1
        return range(max(0, first), min(count - 1, last) + 1)

    def weights(self, number: int, count: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return a tile's weights along one axis at px start…stop of the plane.

        The outermost tiles do not fade towards the edge of the plane.
        """
        position = np.arange(start, stop) - number * self.stride_px
        weight = feather(position, self.tile_px, self.overlap_px)
        half = self.tile_px // 2
        if number == 0:
            weight[position < half] = 1.0
        if number == count - 1:
            weight[position >= half] = 1.0
        return weight


class Renderer:
    """The model with one target, applied to tiles of one slide.

    Parameters
    ----------
    pipe
        A `StainFuserPipeline` or anything called like it.
    target
        (H, W, 3) uint8 RGB reference; it is encoded once.
    seed, num_inference_steps
        Seed of the noise field, if the model starts from noise; network calls per tile or None.
    """

    def __init__(
        self, pipe: Any, target: NDArray[np.uint8], *, seed: int, num_inference_steps: int | None
    ) -> None:
        self._pipe, self._seed, self._steps = pipe, seed, num_inference_steps
        self._target = pipe.encode_target(target)
        self._slide: Any = None

    @property
    def mpp(self) -> float | None:
        """Micrometres per px the model was trained at, if it is known."""
        mpp = self._pipe.config.mpp
        return None if mpp is None else float(mpp)

    @property
    def solution(self) -> Any:
        """What the model's operator head found for the slide; None without a head."""
        return getattr(self._slide, "solution", None)

    def learn_slide(self, tiles: NDArray[np.uint8]) -> None:
        """Take the slide's colours from (N, S, S, 3) uint8 tiles, not from each tile anew."""
        self._slide = self._pipe.fit_slide(list(tiles), self._target)

    def __call__(
        self, tiles: Sequence[NDArray[np.uint8]], corners: Sequence[tuple[int, int]]
    ) -> NDArray[np.uint8]:
        """Render tiles of one size: N times (H, W, 3) uint8 RGB → (N, H, W, 3) uint8 RGB.

        `corners` are their (y, x) on the plane: they choose the piece of the noise field.
        """
        extra: dict[str, Any] = {"mode": "render"}
        if self._slide is not None:
            extra["slide"] = self._slide
        if _starts_from_noise(self._pipe):
            height_px, width_px = tiles[0].shape[:2]
            extra["latents"] = self._noise(corners, height_px, width_px)
        result = self._pipe(
            np.stack(tiles),
            self._target,
            num_inference_steps=self._steps,
            output_type="np",
            batch_size=BATCH_SIZE,
            **extra,
        )
        return np.asarray(result.images)

    def _noise(self, corners: Sequence[tuple[int, int]], height_px: int, width_px: int) -> Any:
        import torch

        factor, multiple = self._pipe.latent_factor, self._pipe.size_multiple
        sides = [-(-side // multiple) * multiple // factor for side in (height_px, width_px)]
        channels = self._pipe.unet.config.in_channels
        pieces = [
            noise_field(self._seed, channels, y // factor, x // factor, *sides) for y, x in corners
        ]
        return torch.from_numpy(np.stack(pieces))


def _starts_from_noise(pipe: Any) -> bool:
    objective = getattr(pipe.config, "objective", None)
    if objective is None:
        return False
    from stainfuser.diffusion.objectives import objective_named

    return objective_named(objective).starts_from == "noise"


def noise_field(
    seed: int, channels: int, top: int, left: int, height: int, width: int
) -> NDArray[np.float32]:
    """Return a piece of one endless field of standard normal noise, (C, H, W) float32.

    Overlapping pieces agree, so overlapping tiles start from the same noise.
    """
    piece = np.empty((channels, height, width), np.float32)
    for row in range(top // NOISE_CELL, (top + height - 1) // NOISE_CELL + 1):
        for column in range(left // NOISE_CELL, (left + width - 1) // NOISE_CELL + 1):
            rng = generator(seed, "noise", row, column)
            cell = rng.standard_normal((channels, NOISE_CELL, NOISE_CELL), np.float32)
            y, x = row * NOISE_CELL - top, column * NOISE_CELL - left
            y0, x0 = max(y, 0), max(x, 0)
            y1, x1 = min(y + NOISE_CELL, height), min(x + NOISE_CELL, width)
            piece[:, y0:y1, x0:x1] = cell[:, y0 - y : y1 - y, x0 - x : x1 - x]
    return piece


class RenderedPlane:
    """The change the model makes to a slide, at the model's resolution.

    Parameters
    ----------
    grid
        The tiles.
    read_tile
        Returns the slide's pixels of a tile, (S, S, 3) uint8, from its corner (x, y) on the plane.
    render
        A `Renderer`.
    memory
        Keeps rendered tiles.
    is_wanted
        Says whether anything is to change in the tile with corner (x, y); other tiles never reach
        the model and count as unchanged.
    """

    def __init__(
        self,
        grid: TileGrid,
        read_tile: Callable[[int, int], NDArray[np.uint8]],
        render: Renderer,
        memory: TileMemory,
        is_wanted: Callable[[int, int], bool],
    ) -> None:
        self.grid, self._read_tile, self._render = grid, read_tile, render
        self._memory, self._is_wanted = memory, is_wanted
        self._first_row = 0

    def change(
        self, top: int, left: int, bottom: int, right: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return optical density of the source and what the model adds, for an area of the plane.

        Both are (H, W, 3) float32, and 0 where nothing is wanted.
        Areas have to come from top to bottom: tiles above the last one are forgotten.
        """
        source_od = np.zeros((bottom - top, right - left, 3), np.float32)
        change = np.zeros_like(source_od)
        tiles = self.grid.touching(top, left, bottom, right)
        if tiles[0][0] > self._first_row:
            self._first_row = tiles[0][0]
            self._memory.drop_rows_before(self._first_row)
        tiles = [tile for tile in tiles if self._wanted(tile)]
        for (row, column), source, rendered in self._rendered(tiles):
            y, x = self._corner((row, column))
            y0, y1 = max(y, top), min(y + self.grid.tile_px, bottom)
            x0, x1 = max(x, left), min(x + self.grid.tile_px, right)
            part = np.s_[y0 - y : y1 - y, x0 - x : x1 - x]
            weight = self.grid.weights(row, self.grid.shape[0], y0, y1)[:, None, None]
            weight = weight * self.grid.weights(column, self.grid.shape[1], x0, x1)[:, None]
            place = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
            od = rgb_to_od(source[part])
            source_od[place] += weight * od
            change[place] += weight * (rgb_to_od(rendered[part]) - od)
        return source_od, change

    def _corner(self, tile: Tile) -> tuple[int, int]:
        return tile[0] * self.grid.stride_px, tile[1] * self.grid.stride_px

    def _wanted(self, tile: Tile) -> bool:
        y, x = self._corner(tile)
        return self._is_wanted(x, y)

    def _rendered(
        self, tiles: list[Tile]
    ) -> Iterable[tuple[Tile, NDArray[np.uint8], NDArray[np.uint8]]]:
        """Yield tile, source and rendered pixels, running the model on batches of what is new."""
        for start in range(0, len(tiles), BATCH_SIZE):
            batch = tiles[start : start + BATCH_SIZE]
            sources = [self._read_tile(x, y) for y, x in map(self._corner, batch)]
            results = [self._memory.get(*tile) for tile in batch]
            new = [i for i, result in enumerate(results) if result is None]
            if new:
                corners = [self._corner(batch[i]) for i in new]
                rendered = self._render([sources[i] for i in new], corners)
                for i, pixels in zip(new, rendered, strict=True):
                    self._memory.put(*batch[i], pixels)
                    results[i] = pixels
            yield from zip(batch, sources, results, strict=True)
