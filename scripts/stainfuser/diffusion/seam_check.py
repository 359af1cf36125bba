"""Measure the seams of a normalised slide against its source."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from stainfuser.io.regions import RegionReader
from stainfuser.stain.seams import GRID_PX, Line, draw_lines, seam_score, step

# Strips looked at, at borders and as many elsewhere.
STRIPS = 600
DRAWN_PER_STRIP = 4


def measure_seams(
    source: RegionReader,
    result: RegionReader,
    borders_px: Sequence[int],
    is_tissue: Callable[[Line], bool],
    rng: np.random.Generator,
) -> float | None:
    """Return `seam_score` over strips of tissue; None if there is none.

    `borders_px` are lines of level 0 along both axes; those off JPEG's grid move to it, as the
    score compares like with like.
    """
    borders = sorted({round(border / GRID_PX) * GRID_PX for border in borders_px})
    drawn = draw_lines(*source.size_px, borders, DRAWN_PER_STRIP * STRIPS, rng)
    chosen = [[line for line in lines if is_tissue(line)][:STRIPS] for lines in drawn]
    if not all(chosen):
        return None
    at_borders, elsewhere = (_steps(source, result, lines) for lines in chosen)
    return seam_score(at_borders, elsewhere)


def _steps(
    source: RegionReader, result: RegionReader, lines: Sequence[Line]
) -> NDArray[np.float64]:
    steps = []
    for line in lines:
        pixels = [reader.read(line.x_px, line.y_px, *line.size_px) for reader in (source, result)]
        steps.append(step(*pixels, line))
    return np.array(steps)
