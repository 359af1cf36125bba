"""How single cells look: nuclei with chromatin, red cells and goblet vacuoles as small patches.

Every cell is drawn on its own, many at a time as (n, s, s) arrays, and stamped into the maps of
the whole frame.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from stainfuser.stain.phantom_fields import Field, Points, noise_tile
from stainfuser.stain.phantom_nucleus_kinds import NucleusKind

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Cells:
    """Cells of one kind: `xy` (n, 2) px from the frame's corner, `angle` (n,) of the long axis."""

    xy: Points
    angle: np.ndarray


class NucleusPainter:
    """Draws nuclei of any kind at one resolution.

    Parameters
    ----------
    rng
        Source of shapes and chromatin.
    mpp
        Resolution, um per px.
    """

    def __init__(self, rng: np.random.Generator, mpp: float) -> None:
        self._rng = rng
        self._mpp = mpp
        self._warp = noise_tile(rng, 512, 4.5 / mpp)
        self._grain = noise_tile(rng, 512, max(0.75 / mpp, 1.3), 0.4)
        self._clump = noise_tile(rng, 512, max(1.5 / mpp, 1.6), 0.35)

    def paint(self, kind: NucleusKind, cells: Cells) -> tuple[Points, Field, Field, Field]:
        """Draw all cells of one kind.

        Returns
        -------
        corner
            (n, 2) int64, column and row of each patch's first px in the frame.
        chromatin, body, cleared
            (n, s, s) float32: amount of chromatin; how much of the px is nucleus, in [0, 1]; how
            much of the surroundings' stain is missing, in [0, 1].
        """
        count = len(cells.xy)
        longest = (kind.length_um[0] + 2.2 * kind.length_um[1]) / (1 - 1.5 * kind.ragged)
        side = 2 * int(np.ceil((0.5 * longest + 1.2) / self._mpp)) + 1
        corner = np.floor(cells.xy).astype(np.int64) - side // 2
        patches = np.zeros((3, count, side, side), np.float32)
        for start in range(0, count, BATCH):
            part = slice(start, min(start + BATCH, count))
            within = cells.xy[part] - corner[part] - 0.5
            patches[:, part] = self._batch(kind, within, cells.angle[part], side)
        return corner, *patches

    def _batch(
        self, kind: NucleusKind, centre: Points, angle: np.ndarray, side: int
    ) -> tuple[Field, Field, Field]:
        rng, count = self._rng, len(centre)
        faint = rng.random(count) < kind.faint
        depth_px = self._shape(kind, centre, angle, side)
        edge_px = _column(np.where(faint, 2.6, rng.uniform(0.8, 1.5, count)))
        body = np.clip(depth_px / edge_px + 0.5, 0, 1)
        body *= body * (3 - 2 * body)
        texture = self._chromatin(kind, depth_px, count, side)
        density = rng.normal(*kind.density, count).clip(0.3, 1.8) * np.where(faint, 0.5, 1.0)
        chromatin = body * texture * _column(density)
        ring_px = 1.1 / self._mpp
        ring = np.exp(-(((depth_px + 0.6 * ring_px) / ring_px) ** 2)) * (depth_px < 1)
        halo = kind.halo * rng.beta(1.2, 1.2, count) * np.where(faint, 0.3, 1.0)
        cleared = np.maximum(body * _column(np.where(faint, 0.35, 0.65)), ring * _column(halo))
        return chromatin, body, cleared

    def _shape(self, kind: NucleusKind, centre: Points, angle: np.ndarray, side: int) -> Field:
        """Return the depth below each nucleus' surface, px, negative outside."""
        rng, count = self._rng, len(centre)
        length = rng.normal(*kind.length_um, count)
        length = length.clip(0.6 * kind.length_um[0], kind.length_um[0] + 2.2 * kind.length_um[1])
        aspect = rng.normal(*kind.aspect, count).clip(max(1.0, 0.6 * kind.aspect[0]), None)
        long_axis = _column(length / 2 / self._mpp)
        short_axis = _column(length / aspect / 2 / self._mpp)
        grid = np.arange(side, dtype=np.float32)
        x = grid[None, None, :] - _column(centre[:, 0])
        y = grid[None, :, None] - _column(centre[:, 1])
        cosine, sine = _column(np.cos(angle)), _column(np.sin(angle))
        along = (x * cosine + y * sine) / long_axis
        across = (y * cosine - x * sine) / short_axis
        across += _column(rng.normal(0, 1, count) * kind.bend) * (along**2 - 0.3)
        across += _column(rng.normal(0, 0.7, count) * kind.bend) * along * (along**2 - 0.6)
        pointed = 1 + _column(kind.pointed * rng.uniform(0.2, 1.6, count)) * along**2
        radial = np.hypot(along, across * pointed)
        dents = np.clip(self._cut(self._warp, count, side), -1.5, 1.5)
        radial *= 1 + np.float32(kind.ragged) * dents
        return (1 - radial) * np.sqrt(short_axis * np.minimum(long_axis, 1.6 * short_axis))

    def _chromatin(self, kind: NucleusKind, depth_px: Field, count: int, side: int) -> Field:
        rim_px = 0.55 / self._mpp
        texture = kind.base + kind.rim * np.exp(-(((depth_px - 0.8 * rim_px) / rim_px) ** 2))
        texture += np.float32(kind.grain) * self._cut(self._grain, count, side)
        clumps = self._cut(self._clump, count, side)
        texture += np.float32(kind.clump) * (np.maximum(clumps, -0.6) - 0.1)
        return np.maximum(texture + self._nucleoli(kind, count, side), 0.12)

    def _nucleoli(self, kind: NucleusKind, count: int, side: int) -> Field | float:
        if kind.nucleoli < 0.05:
            return 0.0
        rng = self._rng
        total = np.zeros((count, side, side), np.float32)
        grid = np.arange(side, dtype=np.float32) - side // 2
        number = np.minimum(rng.poisson(kind.nucleoli, count), 3)
        for index in range(int(number.max(initial=0))):
            place = rng.normal(0, 0.11 * kind.length_um[0] / self._mpp, (2, count))
            size = rng.uniform(0.55, 1.0, count) / self._mpp
            x, y = grid[None, None, :] - _column(place[0]), grid[None, :, None] - _column(place[1])
            gain = _column(0.75 * (number > index))
            total += gain * np.exp(-(x * x + y * y) / _column(size) ** 2)
        return total

    def _cut(self, tile: Field, count: int, side: int) -> Field:
        """Return `count` patches of a periodic tile at random places: (count, side, side)."""
        starts = self._rng.integers(0, tile.shape[0] - side, (count, 2))
        windows = np.lib.stride_tricks.sliding_window_view(tile, (side, side))
        return windows[starts[:, 0], starts[:, 1]]


def _column(values: np.ndarray) -> Field:
    """Return (n,) as (n, 1, 1) float32, to be combined with patches."""
    return np.asarray(values, np.float32)[:, None, None]


def paint_discs(
    rng: np.random.Generator, mpp: float, cells: Cells, diameter_um: float, aspect: float
) -> tuple[Points, Field]:
    """Draw soft discs (red cells, vacuoles): corners (n, 2) and patches (n, s, s) in [0, 1]."""
    count = len(cells.xy)
    side = 2 * int(np.ceil((0.65 * diameter_um * aspect + 1.0) / mpp)) + 1
    corner = np.floor(cells.xy).astype(np.int64) - side // 2
    centre = cells.xy - corner - 0.5
    grid = np.arange(side, dtype=np.float32)
    x = grid[None, None, :] - _column(centre[:, 0])
    y = grid[None, :, None] - _column(centre[:, 1])
    cosine, sine = _column(np.cos(cells.angle)), _column(np.sin(cells.angle))
    size = _column(rng.normal(1.0, 0.09, count).clip(0.75, 1.25) * diameter_um / 2 / mpp)
    stretch = _column(rng.uniform(1.0, aspect, count))
    radial = np.hypot((x * cosine + y * sine) / stretch, (y * cosine - x * sine) * stretch**0.4)
    body = np.clip((size - radial) / 1.1 + 0.5, 0, 1)
    return corner, body * body * (3 - 2 * body)


def stamp(
    frame: np.ndarray, corner: Points, patches: Field, combine: np.ufunc = np.maximum
) -> None:
    """Combine patches (n, s, s) into the frame (H, W) at their corners, in order, in place."""
    side = patches.shape[1]
    height, width = frame.shape
    for (x, y), patch in zip(corner.tolist(), patches, strict=True):
        top, left = max(-y, 0), max(-x, 0)
        bottom, right = min(height - y, side), min(width - x, side)
        if top < bottom and left < right:
            window = frame[y + top : y + bottom, x + left : x + right]
            combine(window, patch[top:bottom, left:right], out=window)


def stamp_labels(labels: np.ndarray, corner: Points, bodies: Field, first: int) -> int:
    """Number nuclei in the label image (H, W) uint16, in place; earlier nuclei stay on top.

    Labels run from 1 to 65,535 and then start again: nuclei that share a number are far apart.
    Returns the number of the next nucleus.
    """
    side = bodies.shape[1]
    height, width = labels.shape
    for index, ((x, y), body) in enumerate(zip(corner.tolist(), bodies, strict=True)):
        top, left = max(-y, 0), max(-x, 0)
        bottom, right = min(height - y, side), min(width - x, side)
        if top < bottom and left < right:
            window = labels[y + top : y + bottom, x + left : x + right]
            free = (body[top:bottom, left:right] > 0.5) & (window == 0)
            window[free] = (first + index - 1) % 65535 + 1
    return first + len(corner)
