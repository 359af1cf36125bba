"""What besides tissue is on a glass: folds, the mark of a pen, dust and lint."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.phantom_fields import Field, Points, Upsampler, ramp
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_nuclei import Cells, paint_discs, stamp


def add_fold(
    rng: np.random.Generator, grid: Grid, depth_um: Field, amounts: NDArray[np.float32]
) -> None:
    """Lay a strip of the section double, in place: amounts (n, H, W) of the section's substances.

    The upper layer is the mirror image of the tissue beside the strip. Nothing happens where no
    tissue is deep enough for a fold.
    """
    places = np.argwhere(depth_um > 90)[:, ::-1]
    if not len(places):
        return
    centre = (places[int(rng.integers(len(places)))] + 0.5) * grid.coarse_um
    turn, length_um = rng.uniform(0, np.pi), rng.uniform(320, 620)
    reach_um = 0.55 * length_um
    low = np.maximum((centre - reach_um) / grid.mpp, 0).astype(int)
    high = np.minimum((centre + reach_um) / grid.mpp, grid.side_px).astype(int)
    y = np.arange(low[1], high[1], dtype=np.float32)[:, None] * grid.mpp - centre[1]
    x = np.arange(low[0], high[0], dtype=np.float32)[None, :] * grid.mpp - centre[0]
    along = x * np.cos(turn) + y * np.sin(turn)
    across = y * np.cos(turn) - x * np.sin(turn)
    across += rng.uniform(-0.35, 0.35) / length_um * along**2
    across += 3.0 * np.sin(along / rng.uniform(18, 30)) + 2.0 * np.sin(along / rng.uniform(7, 11))
    half_um = rng.uniform(9, 17) * np.clip(1 - (2 * along / length_um) ** 2, 0, 1) ** 0.5
    weight = ramp(np.abs(across) - half_um, 0.8, -0.8) * (half_um > 1.5)
    shift = (2 * (half_um - across) / grid.mpp).astype(np.float32)
    rows, columns = np.nonzero(weight)
    moved = shift[rows, columns]
    weight = weight[rows, columns].astype(np.float32)
    rows, columns = rows + low[1], columns + low[0]
    last = grid.side_px - 1
    source_y = np.clip(np.rint(rows + moved * np.cos(turn)), 0, last).astype(np.int64)
    source_x = np.clip(np.rint(columns - moved * np.sin(turn)), 0, last).astype(np.int64)
    for substance in amounts:
        substance[rows, columns] += weight * 0.95 * substance[source_y, source_x]


def draw_pen(rng: np.random.Generator, grid: Grid, depth_um: Field, ink: Field) -> None:
    """Draw one stroke of a marker that starts on glass and runs over an edge of tissue, in place.

    `ink` is (H, W) float32. The ink lies on the cover slip, hence its soft outline.
    """
    edge = np.argwhere(np.abs(depth_um) < grid.coarse_um)[:, ::-1]
    if not len(edge):
        return
    touch, outward = _outer_edge(rng, grid, depth_um, edge)
    scale = min(1.0, grid.side_px * grid.mpp / 1500)  # small frames: a finer pen
    length = scale * rng.uniform(260, 420) / grid.coarse_um
    side = np.array([-outward[1], outward[0]])
    start = touch + outward * 0.35 * length + side * 0.9 * length
    middle = touch + outward * 0.15 * length
    stop = touch - outward * 0.10 * length - side * 0.7 * length
    line = _curve(start, middle, stop, 400)
    canvas = np.ones(grid.shape, bool)
    index = np.clip(line.astype(int), 0, np.array(grid.shape)[::-1] - 1)
    canvas[index[:, 1], index[:, 0]] = False
    distance = ndimage.distance_transform_edt(canvas) * grid.coarse_um
    half_um = scale * rng.uniform(38, 60) * (1 + 0.07 * grid.noise(rng, 60.0, 3))
    within = ramp((half_um - distance).astype(np.float32), -4.0, 5.0)
    rim = np.exp(-(((half_um - distance - 7) / 6) ** 2))
    density = within * (0.75 + 0.12 * grid.noise(rng, 80.0, 3) + 0.25 * rim)
    density = ndimage.gaussian_filter(density.clip(0).astype(np.float32), 1.2)
    ink += Upsampler(grid.shape, ink.shape, grid.step).full(density)


def scatter_dust(rng: np.random.Generator, grid: Grid, ink: Field) -> None:
    """Add specks and a little lint to the ink (H, W), in place."""
    area_mm2 = (grid.side_px * grid.mpp / 1000) ** 2
    count = int(rng.poisson(7 * area_mm2))
    for diameter_um in (1.5, 2.5, 4.0):
        xy = rng.uniform(0, grid.side_px, (count, 2))
        corner, bodies = paint_discs(
            rng, grid.mpp, Cells(xy, rng.uniform(0, np.pi, count)), diameter_um, 1.8
        )
        strength = rng.uniform(0.2, 1.0, (count, 1, 1)).astype(np.float32)
        stamp(ink, corner, bodies * strength)
    for _ in range(int(rng.poisson(0.5 * area_mm2))):
        ends = rng.uniform(0, grid.side_px, 2) + rng.normal(0, 60 / grid.mpp, (3, 2))
        xy = _curve(*ends, 500)
        corner, bodies = paint_discs(rng, grid.mpp, Cells(xy, np.zeros(500)), 2.4, 1.0)
        stamp(ink, corner, bodies * np.float32(0.3))


def _outer_edge(
    rng: np.random.Generator, grid: Grid, depth_um: Field, edge: Points
) -> tuple[Points, Points]:
    """Return a px of the edge with open glass before it, and the unit vector (x, y) outwards."""
    smooth = ndimage.gaussian_filter(depth_um, 10.0)
    last = np.array(grid.shape)[::-1] - 2
    for place in rng.permutation(edge)[:100]:
        x, y = np.clip(place, 1, last)
        slope = (smooth[y, x + 1] - smooth[y, x - 1], smooth[y + 1, x] - smooth[y - 1, x])
        outward = -np.array(slope) / (np.hypot(*slope) + 1e-9)
        before = np.clip(place + outward * 110 / grid.coarse_um, 0, last).astype(int)
        if depth_um[before[1], before[0]] < -75:
            break
    return place.astype(np.float64), outward


def _curve(start: Points, middle: Points, stop: Points, count: int) -> Points:
    """Return points (count, 2) on the quadratic Bezier curve through three control points."""
    t = np.linspace(0, 1, count)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * stop
