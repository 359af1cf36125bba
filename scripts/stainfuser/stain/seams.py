"""Are there steps of colour along the borders of tiles and blocks? Compared with random places.

What is looked at is the *change* (result less source), in which the tissue's own structure is gone.
On either side of a line it is averaged over a strip, so that steps far below a grey level show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# A strip's length along the line and its depth on either side, px.
STRIP_PX, DEPTH_PX = 64, 8
# JPEG makes steps of its own along the borders of its blocks: all lines are on this grid.
GRID_PX = 8


@dataclass(frozen=True)
class Line:
    """A strip across a line that may be a seam; x_px, y_px is its top left corner.

    `upright` lines run along y, between columns x_px + DEPTH_PX - 1 and x_px + DEPTH_PX.
    """

    x_px: int
    y_px: int
    upright: bool

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the strip."""
        sides = (2 * DEPTH_PX, STRIP_PX)
        return sides if self.upright else sides[::-1]


def draw_lines(
    width_px: int,
    height_px: int,
    borders_px: Sequence[int],
    count: int,
    rng: np.random.Generator,
) -> tuple[list[Line], list[Line]]:
    """Draw strips across borders, and as many across other lines of the same direction.

    Parameters
    ----------
    borders_px
        Where borders lie along x and along y: multiples of `GRID_PX`.
    """
    every = np.arange(GRID_PX * 2, max(width_px, height_px) - DEPTH_PX, GRID_PX)
    places = (np.intersect1d(every, borders_px), np.setdiff1d(every, borders_px))
    drawn: tuple[list[Line], list[Line]] = ([], [])
    for lines, candidates in zip(drawn, places, strict=True):
        for number in range(count if len(candidates) else 0):
            upright = number % 2 == 0
            across, along = (width_px, height_px) if upright else (height_px, width_px)
            inside = candidates[candidates + DEPTH_PX <= across]
            if not len(inside) or along < STRIP_PX:
                continue
            at = int(rng.choice(inside)) - DEPTH_PX
            start = int(rng.integers(0, along - STRIP_PX + 1))
            lines.append(Line(at, start, True) if upright else Line(start, at, False))
    return drawn


def step(source: NDArray[np.uint8], result: NDArray[np.uint8], line: Line) -> NDArray[np.float64]:
    """Return the step of the change across a line, (3,) grey levels; pixels (H, W, 3) uint8."""
    change = result.astype(np.float64) - source
    if not line.upright:
        change = change.swapaxes(0, 1)
    return change[:, DEPTH_PX:].mean((0, 1)) - change[:, :DEPTH_PX].mean((0, 1))


def seam_score(at_borders: NDArray[np.float64], elsewhere: NDArray[np.float64]) -> float:
    """Return the root mean square of (N, 3) steps at borders over that elsewhere: 1 is no seam.

    0.02 grey levels are added to both: what nobody sees counts as equal.
    """
    sizes = [np.sqrt(np.square(steps).mean()) for steps in (at_borders, elsewhere)]
    return float((sizes[0] + 0.02) / (sizes[1] + 0.02))
