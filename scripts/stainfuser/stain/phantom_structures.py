"""Glands, vessels and adipocytes of a phantom, as distance fields on the coarse grid."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from stainfuser.stain.phantom_fields import (
    Field,
    Points,
    cell_walls,
    lattice,
    ramp,
    sample,
    signed_distance,
)
from stainfuser.stain.phantom_grid import Grid

Window = tuple[slice, slice]


@dataclasses.dataclass(frozen=True)
class GlandKind:
    """One architecture of glandular epithelium; lengths in um.

    Attributes
    ----------
    radius_um
        Smallest and largest radius of a lobe.
    lobes
        Fewest and most lobes a gland is a chain of.
    cell_um
        Height of the epithelium; what lies deeper is lumen.
    layers
        Layers of nuclei: 1 is a simple palisade, above 2 is stratified.
    solid
        Fraction of the glands of this kind without a lumen.
    goblet
        Fraction of cells that hold a vacuole of mucin.
    basophilia
        Affinity of the cytoplasm to haematoxylin, relative.
    """

    radius_um: tuple[float, float]
    lobes: tuple[int, int]
    cell_um: float
    layers: float
    solid: float
    goblet: float
    basophilia: float


GLAND_KINDS = {
    "acinus": GlandKind((22.0, 40.0), (1, 2), 15.0, 1.1, 0.15, 0.0, 1.0),
    "crypt": GlandKind((36.0, 50.0), (1, 3), 26.0, 1.3, 0.0, 0.45, 0.8),
    "duct": GlandKind((26.0, 48.0), (2, 6), 19.0, 1.7, 0.05, 0.0, 1.0),
    "atypical": GlandKind((42.0, 75.0), (1, 5), 28.0, 2.8, 0.0, 0.04, 1.25),
    "nest": GlandKind((28.0, 70.0), (1, 4), 24.0, 2.5, 1.0, 0.0, 1.1),
}
# Kinds that occur together, as they do in one organ or tumour, and their shares.
GLAND_MIXES: tuple[dict[str, float], ...] = (
    {"acinus": 0.5, "duct": 0.35, "nest": 0.15},
    {"crypt": 0.6, "atypical": 0.4},
    {"atypical": 0.45, "nest": 0.3, "acinus": 0.25},
    {"duct": 0.45, "nest": 0.4, "acinus": 0.15},
)


@dataclasses.dataclass(frozen=True)
class Glands:
    """Glandular epithelium; all arrays (h, w) float32, attributes hold within their gland.

    Attributes
    ----------
    depth_um
        Distance to the basement membrane, positive in the epithelium and its lumen.
    lumen_um
        Distance to the apical border, positive in the lumen.
    layers, goblet, basophilia
        See `GlandKind`.
    secretion
        How much of the lumen is filled, in [0, 1].
    cleft_um
        Width of the cleft that shrinkage tore outside the basement membrane.
    """

    depth_um: Field
    lumen_um: Field
    layers: Field
    goblet: Field
    basophilia: Field
    secretion: Field
    cleft_um: Field


@dataclasses.dataclass(frozen=True)
class Vessels:
    """Blood vessels; all arrays (h, w) float32.

    Attributes
    ----------
    lumen_um
        Distance to the endothelium, positive inside the vessel.
    wall_um
        Thickness of the muscular wall around.
    filling
        Fraction of the lumen taken by red cells.
    inflamed
        Weight of the cuff of lymphocytes around the nearest vessel.
    """

    lumen_um: Field
    wall_um: Field
    filling: Field
    inflamed: Field


def place_glands(
    rng: np.random.Generator, grid: Grid, mix: dict[str, float], suitable: Field, depth: Field
) -> Glands:
    """Pack glands of a mix of kinds where `suitable` (0 to 1) and the depth in tissue allow it.

    Glands are added one by one, large ones first; each is cut back where it would come too near
    the ones before, so that close-packed glands face each other with flat sides.
    """
    warp = 6.0 * grid.noise(rng, 50.0) + 2.5 * grid.noise(rng, 16.0)
    union = np.full(grid.shape, -1e3, np.float32)
    owner = np.zeros(grid.shape, np.int32)
    kinds: list[GlandKind] = []
    for centre, kind in _gland_candidates(rng, grid, mix, suitable, depth):
        window, shape = _gland_shape(rng, grid, centre, kind)
        shape += warp[window]
        gap = rng.uniform(7.0, 16.0)
        cut = np.minimum(shape, -(union[window] + gap))
        cut = np.minimum(cut, depth[window] - 4)
        if (cut > 0).sum() < 0.55 * max((shape > 0).sum(), 1):
            continue
        kinds.append(kind)
        owner[window][cut > 0] = len(kinds)
        union[window] = np.maximum(union[window], cut)
    return _glands_from(rng, grid, owner, kinds)


def _gland_candidates(
    rng: np.random.Generator, grid: Grid, mix: dict[str, float], suitable: Field, depth: Field
) -> list[tuple[np.ndarray, GlandKind]]:
    """Return centres (coarse px) and kinds, kinds changing slowly across the slide."""
    names = list(mix)
    places = lattice(rng, grid.shape, 46.0 / grid.coarse_um, 0.6)
    places = places[(sample(suitable, places) > 0.5) & (sample(depth, places) > 25)]
    scores = np.stack([sample(grid.noise(rng, 350.0, 2), places) for _ in names])
    scores += 1.3 * np.log(np.array(list(mix.values())))[:, None]
    scores += 0.6 * rng.gumbel(size=scores.shape)
    chosen = [GLAND_KINDS[names[index]] for index in scores.argmax(axis=0)]
    # Large glands go first and would crowd out small ones: fewer of them apply for a place.
    reach_um = np.array([kind.radius_um[1] for kind in chosen])
    applies = np.flatnonzero(rng.random(len(chosen)) < (42.0 / np.maximum(reach_um, 42.0)) ** 2)
    places, chosen = places[applies], [chosen[index] for index in applies]
    size = np.array([kind.radius_um[1] for kind in chosen]) + rng.normal(0, 14, len(chosen))
    return [(places[index], chosen[index]) for index in np.argsort(-size, kind="stable")]


def _gland_shape(
    rng: np.random.Generator, grid: Grid, centre: np.ndarray, kind: GlandKind
) -> tuple[Window, Field]:
    """Return a window of the coarse grid and the gland's distance field in it (um)."""
    count = int(rng.integers(kind.lobes[0], kind.lobes[1] + 1))
    radii = rng.uniform(*kind.radius_um, count)
    turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.5, count))
    steps = 1.05 * radii[:, None] * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    lobes = np.cumsum(steps, axis=0)
    lobes = (lobes - lobes.mean(axis=0)) / grid.coarse_um + centre
    reach = (radii.max() + 22) / grid.coarse_um
    low = np.clip(np.floor(lobes.min(axis=0) - reach), 0, grid.shape[0]).astype(int)
    high = np.clip(np.ceil(lobes.max(axis=0) + reach), 0, grid.shape[0]).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]].astype(np.float32)
    total = np.zeros(y.shape, np.float32)
    for (lobe_x, lobe_y), radius in zip(lobes, radii, strict=True):
        distance = np.hypot(x - np.float32(lobe_x), y - np.float32(lobe_y)) * grid.coarse_um
        total += np.exp(np.clip((radius - distance) / 9.0, -30, 30))
    return (slice(low[1], high[1]), slice(low[0], high[0])), 9.0 * np.log(total + 1e-12)


def _glands_from(
    rng: np.random.Generator, grid: Grid, owner: np.ndarray, kinds: list[GlandKind]
) -> Glands:
    """Return distance fields and attributes of glands whose px are numbered in `owner`."""
    depth = signed_distance(owner > 0) * np.float32(grid.coarse_um)
    count = len(kinds) + 1

    def attribute(values: list[float], spread: float) -> Field:
        table = np.array([0.0, *values]) * np.exp(rng.normal(0, spread, count))
        return table.astype(np.float32)[owner]

    solid = rng.random(count) < [0.0, *(kind.solid for kind in kinds)]
    height = attribute([kind.cell_um for kind in kinds], 0.10)
    height *= 1 + 0.16 * grid.noise(rng, 22.0) + 0.08 * grid.noise(rng, 9.0)
    lumen = depth - height - 1e3 * solid[owner]
    holes = 13.0 * (grid.noise(rng, 24.0) - 1.9)  # solid nests: a few small round lumens
    lumen = np.maximum(lumen, np.minimum(holes, depth - 20))
    torn = (rng.random(count) < 0.3)[owner] * ramp(grid.noise(rng, 60.0), 0.3, 1.4)
    layers = attribute([kind.layers for kind in kinds], 0.15)
    return Glands(
        depth_um=depth,
        lumen_um=lumen.astype(np.float32),
        layers=np.where(solid[owner], np.maximum(layers, 2.2), layers).astype(np.float32),
        goblet=attribute([kind.goblet for kind in kinds], 0.3),
        basophilia=attribute([kind.basophilia for kind in kinds], 0.12),
        secretion=np.clip(attribute([0.5] * len(kinds), 0.9), 0, 1)
        * (rng.random(count) < 0.6)[owner],
        cleft_um=(9.0 * _spread(torn, depth > 0)).astype(np.float32),
    )


def _spread(values: Field, mask: np.ndarray) -> Field:
    """Continue masked values outside the mask: each px takes its nearest masked value."""
    if not mask.any():
        return np.zeros_like(values)
    rows, columns = ndimage.distance_transform_edt(
        ~mask, return_distances=False, return_indices=True
    )
    return ndimage.gaussian_filter(values[rows, columns], 2.0)


def place_vessels(rng: np.random.Generator, grid: Grid, free: np.ndarray, fat: Field) -> Vessels:
    """Scatter capillaries, venules and arterioles where `free`; few in fat."""
    places = lattice(rng, grid.shape, 75.0 / grid.coarse_um, 0.8)
    chance = np.where(sample(fat, places) > 0.3, 0.25, 0.75)
    places = places[sample(free, places) & (rng.random(len(places)) < chance)]
    fields = [np.full(grid.shape, value, np.float32) for value in (-1e3, 0.0, 0.0, 0.0)]
    for place in places:
        _add_vessel(rng, grid, place, fields)
    return Vessels(*fields)


def _add_vessel(rng: np.random.Generator, grid: Grid, place: Points, fields: list[Field]) -> None:
    lumen, wall, filling, inflamed = fields
    radius = min(2.6 + rng.gamma(0.8, 5.0), 40.0)
    window, distance = _bent_ellipse(rng, grid, place, radius)
    nearer = distance > lumen[window]
    lumen[window] = np.where(nearer, distance, lumen[window])
    muscular = radius > 6 and rng.random() < 0.5
    thick = rng.uniform(0.35, 0.9) * radius if muscular else rng.uniform(0.8, 2.0)
    filled = rng.choice([0.0, 0.35, 0.75, 0.95], p=[0.3, 0.2, 0.2, 0.3])
    cuffed = float(rng.random() < 0.2)
    for field, value in ((wall, min(thick, 18.0)), (filling, filled), (inflamed, cuffed)):
        field[window] = np.where(nearer, np.float32(value), field[window])


def _bent_ellipse(
    rng: np.random.Generator, grid: Grid, place: Points, radius_um: float
) -> tuple[Window, Field]:
    """Return a window of the coarse grid and the distance field (um) of one vessel in it."""
    stretch, turn, bend = rng.uniform(1.0, 3.0), rng.uniform(0, np.pi), rng.uniform(-0.4, 0.4)
    reach = int((radius_um * stretch + 45) / grid.coarse_um)
    low = np.clip(place.astype(int) - reach, 0, grid.shape[0])
    high = np.clip(place.astype(int) + reach, 0, grid.shape[0])
    y = (np.arange(low[1], high[1])[:, None] - place[1]).astype(np.float32) * grid.coarse_um
    x = (np.arange(low[0], high[0])[None, :] - place[0]).astype(np.float32) * grid.coarse_um
    along = x * np.cos(turn) + y * np.sin(turn)
    across = y * np.cos(turn) - x * np.sin(turn) + bend / (radius_um * stretch**2) * along**2
    distance = (radius_um - np.hypot(along / stretch, across)).astype(np.float32)
    return (slice(low[1], high[1]), slice(low[0], high[0])), distance


def wall_adipocytes(
    rng: np.random.Generator, grid: Grid, fat: Field, glands: Glands, vessels: Vessels, depth: Field
) -> tuple[Field, Field]:
    """Return the distance to adipocyte walls (um) and the weight of fat that is left to them.

    Single adipocytes also stray beyond the edge of the fat, as they do in breast.
    """
    structure = np.maximum(glands.depth_um + 10, vessels.lumen_um + vessels.wall_um + 4)
    room = np.minimum(fat * 2, ramp(structure, 0.0, -8.0))
    seeds = lattice(rng, grid.shape, 62.0 / grid.coarse_um, 0.55)
    walls = cell_walls(seeds, grid.shape, room > 0) * np.float32(grid.coarse_um)
    walls += 1.1 * grid.noise(rng, 30.0) * (walls < 90)
    inside = np.minimum(walls, (depth - 1.5).clip(0))
    left = np.clip(room, 0, 1)
    return np.minimum(inside, 60.0 * left).astype(np.float32), left.astype(np.float32)
