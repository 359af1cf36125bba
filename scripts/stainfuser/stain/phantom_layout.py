"""Where which kind of tissue lies: outline, regions and fibre directions on a 2 um grid.

A `Layout` is the plan that cells are placed in and component maps are drawn from. Distances are
in um, positive inside the structure they belong to.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import ndimage

from stainfuser.stain.phantom_fields import (
    Field,
    lattice,
    ramp,
    sample,
    signed_distance,
)
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_structures import (
    GLAND_MIXES,
    Glands,
    Vessels,
    place_glands,
    place_vessels,
    wall_adipocytes,
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The plan of one phantom; all arrays (h, w) float32 on the coarse grid.

    Attributes
    ----------
    depth_um
        Distance to the edge of the tissue.
    fat, muscle, dense, lymph
        Weights in [0, 1]: adipose tissue, smooth muscle, density of collagen, chance that a
        lymphocyte takes a free place.
    adipocyte_um
        Distance to the nearest adipocyte wall (large outside fat).
    cosine2, sine2
        Cosine and sine of twice the fibres' angle to the columns: a direction without a sign.
    thickness
        Section thickness relative to its mean.
    """

    grid: Grid
    depth_um: Field
    fat: Field
    muscle: Field
    dense: Field
    lymph: Field
    adipocyte_um: Field
    glands: Glands
    vessels: Vessels
    cosine2: Field
    sine2: Field
    thickness: Field


@dataclasses.dataclass(frozen=True)
class Composition:
    """What a phantom is made of.

    Attributes
    ----------
    tissue_fraction
        Fraction of the frame inside the tissue's outline.
    fat_fraction, muscle_fraction, gland_fraction
        Fractions of the tissue given to each region; the rest is collagenous stroma.
    pieces
        Pieces of tissue on the glass; 0: one piece that leaves the frame on most sides.
    region_um
        Typical width of a region.
    glands
        Kind of gland → its share.
    """

    tissue_fraction: float
    fat_fraction: float
    muscle_fraction: float
    gland_fraction: float
    pieces: int
    region_um: float
    glands: dict[str, float]


def slide_composition(rng: np.random.Generator, grid: Grid) -> Composition:
    """Draw the composition of a whole slide: 2 to 3 pieces, every region present."""
    return Composition(
        tissue_fraction=rng.uniform(0.55, 0.62),
        fat_fraction=rng.uniform(0.07, 0.15),
        muscle_fraction=rng.uniform(0.06, 0.14),
        gland_fraction=rng.uniform(0.42, 0.58),
        pieces=int(rng.integers(2, 4)),
        region_um=min(420.0, 0.3 * grid.side_px * grid.mpp),
        glands=GLAND_MIXES[int(rng.integers(len(GLAND_MIXES)))],
    )


def target_composition(grid: Grid) -> Composition:
    """Return the composition of a reference image: mostly tissue, every region in a small frame."""
    return Composition(
        tissue_fraction=0.95,
        fat_fraction=0.05,
        muscle_fraction=0.08,
        gland_fraction=0.48,
        pieces=0,
        region_um=min(170.0, 0.35 * grid.side_px * grid.mpp),
        glands={"acinus": 0.5, "crypt": 0.2, "duct": 0.24, "nest": 0.06},
    )


def plan_tissue(rng: np.random.Generator, grid: Grid, composition: Composition) -> Layout:
    """Draw the plan of one phantom."""
    depth = _outline(rng, grid, composition)
    tissue = depth > 0
    fat, muscle, glandular = _regions(rng, grid, composition, depth)
    glands = place_glands(rng, grid, composition.glands, glandular, depth)
    free = tissue & (glands.depth_um < -14) & (depth > 25)
    vessels = place_vessels(rng, grid, free, fat)
    lymph = _lymphoid(rng, grid, depth, fat, glands, vessels)
    cosine2, sine2 = _fibre_directions(rng, grid, glands, vessels, muscle)
    adipocytes, fat = wall_adipocytes(rng, grid, fat, glands, vessels, depth)
    return Layout(
        grid=grid,
        depth_um=depth,
        fat=fat,
        muscle=muscle,
        dense=ramp(grid.noise(rng, composition.region_um * 0.5, 3), -1.3, 1.0),
        lymph=lymph,
        adipocyte_um=adipocytes,
        glands=glands,
        vessels=vessels,
        cosine2=cosine2,
        sine2=sine2,
        thickness=_thickness(rng, grid),
    )


def ranked(field: Field, mask: np.ndarray) -> Field:
    """Return each masked value's rank in [0, 1]; 0 outside the mask."""
    ranks = np.zeros(field.shape, np.float32)
    count = int(mask.sum())
    if count:
        order = np.empty(count, np.float32)
        order[np.argsort(field[mask], kind="stable")] = np.linspace(0, 1, count, dtype=np.float32)
        ranks[mask] = order
    return ranks


def _outline(rng: np.random.Generator, grid: Grid, composition: Composition) -> Field:
    height, width = grid.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / np.float32(height) - 0.5
    if composition.pieces:
        field = _pieces(rng, rows, columns, composition.pieces)
        edge = 0.5 - np.maximum(np.abs(rows), np.abs(columns))
        field -= 0.3 * ramp(edge, 0.16, 0.0) + 3.0 * ramp(edge, 0.03, 0.0)
    else:
        angle = rng.uniform(0, 2 * np.pi)
        field = 1.2 * (rows * np.sin(angle) + columns * np.cos(angle))
    side_um = grid.side_px * grid.mpp
    for scale_um, gain in ((0.3 * side_um, 0.055), (70.0, 26.0 / side_um), (18.0, 9.0 / side_um)):
        field += np.float32(gain) * grid.noise(rng, scale_um, 2)
    level = np.quantile(field, 1 - composition.tissue_fraction)
    mask = _without_specks(field > level, int(4000 / grid.coarse_um**2))
    return signed_distance(mask) * np.float32(grid.coarse_um)


def _pieces(rng: np.random.Generator, rows: Field, columns: Field, count: int) -> Field:
    """Return how far inside its piece each px is: strips of tissue beside one another."""
    angle = rng.uniform(0, np.pi)
    across = columns * np.cos(angle) + rows * np.sin(angle)
    along = rows * np.cos(angle) - columns * np.sin(angle)
    across = across + rng.uniform(-0.5, 0.5) * (along**2 - 0.08)
    shares = rng.dirichlet(np.full(count, 12.0))
    centres = 0.96 * (np.cumsum(shares) - shares / 2 - 0.5)
    pieces = [
        _strip(rng, across - np.float32(centre), along, 0.5 * share)
        for centre, share in zip(centres, shares, strict=True)
    ]
    return np.maximum.reduce(pieces)


def _strip(rng: np.random.Generator, across: Field, along: Field, half_width: float) -> Field:
    """Return the depth in a strip with rounded ends; strips differ in length and in taper."""
    length, shift, taper = rng.uniform(0.42, 0.56), rng.uniform(-0.08, 0.08), rng.uniform(-0.5, 0.5)
    reach = (along - shift) / length
    half = half_width * (0.92 + taper * 0.3 * reach)
    radial = (np.abs(across / half) ** 3 + np.abs(reach) ** 3) ** (1 / 3)
    return (half_width * (1 - radial)).astype(np.float32)


def _without_specks(mask: np.ndarray, least_px: int) -> np.ndarray:
    labels, count = ndimage.label(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    keep = sizes >= least_px
    keep[0] = False
    return keep[labels]


def _regions(
    rng: np.random.Generator, grid: Grid, composition: Composition, depth: Field
) -> tuple[Field, Field, Field]:
    """Return weights of fat and of muscle, and suitability for glands (all in [0, 1])."""
    tissue = depth > 0
    softness = 0.012
    lie = grid.noise(rng, composition.region_um, 3) - depth / np.float32(900.0)
    fat_from = 1 - composition.fat_fraction
    fat = ramp(ranked(lie, tissue), fat_from - softness, fat_from + softness)
    rest = tissue & (fat < 0.5)
    muscle_from = 1 - composition.muscle_fraction / (1 - composition.fat_fraction)
    rank = ranked(grid.noise(rng, composition.region_um, 3), rest)
    muscle = ramp(rank, muscle_from - 2 * softness, muscle_from + 2 * softness) * (1 - fat)
    rest &= muscle < 0.5
    share = composition.gland_fraction / max(rest.sum() / max(tissue.sum(), 1), 0.1)
    rank = ranked(grid.noise(rng, composition.region_um, 3), rest)
    return fat, muscle, ramp(rank, 0.97 - share, 1.03 - share) * rest


def _lymphoid(
    rng: np.random.Generator, grid: Grid, depth: Field, fat: Field, glands: Glands, vessels: Vessels
) -> Field:
    """Return the chance that a lymphocyte takes a free place: aggregates, haze and cuffs."""
    haze = 0.009 + 0.045 * ramp(grid.noise(rng, 160.0, 2), 0.6, 2.2)
    cuff = 0.25 * np.exp(-(((vessels.lumen_um + 12) / 14) ** 2)) * vessels.inflamed
    shaken = 30.0 * grid.noise(rng, 60.0, 2)
    density = haze + cuff
    places = lattice(rng, grid.shape, 420.0 / grid.coarse_um)
    good = (sample(depth, places) > 60) & (sample(fat, places) < 0.3)
    places = places[good]
    order = np.argsort(sample(glands.depth_um, places) + rng.normal(0, 25, len(places)))
    count = max(2, round(1.1 * (grid.side_px * grid.mpp / 1000) ** 2))
    rows, columns = np.mgrid[0 : grid.shape[0], 0 : grid.shape[1]].astype(np.float32)
    for x, y in places[order[:count]]:
        distance = np.hypot(columns - np.float32(x), rows - np.float32(y)) * grid.coarse_um
        radius = rng.uniform(70, 150) + shaken
        density = np.maximum(density, 0.95 * ramp(distance - radius, 45.0, -25.0))
    patchy = 0.75 + 0.25 * grid.noise(rng, 22.0, 2)
    return (density * patchy * (1 - 0.8 * fat)).clip(0, 1).astype(np.float32)


def _fibre_directions(
    rng: np.random.Generator, grid: Grid, glands: Glands, vessels: Vessels, muscle: Field
) -> tuple[Field, Field]:
    """Return doubled directions: streaming on a large scale, wavy, and wrapped round structures."""
    angle = 1.7 * grid.noise(rng, 420.0, 2) + rng.uniform(0, np.pi)
    cosine, sine = np.cos(2 * angle), np.sin(2 * angle)
    for distance, reach in ((glands.depth_um, 45.0), (vessels.lumen_um, 22.0)):
        smooth = ndimage.gaussian_filter(distance, 5.0)
        gy, gx = np.gradient(smooth)
        tangent = np.arctan2(gx, -gy)
        pull = np.exp(-np.maximum(-distance, 0) / reach) * 1.3
        pull *= np.minimum(np.hypot(gx, gy) / (0.5 * grid.coarse_um), 1.0)
        cosine = cosine * np.maximum(1 - pull, 0) + pull * np.cos(2 * tangent)
        sine = sine * np.maximum(1 - pull, 0) + pull * np.sin(2 * tangent)
    smoothing = 8.0 / grid.coarse_um
    cosine, sine = (ndimage.gaussian_filter(part, smoothing) for part in (cosine, sine))
    waviness = 0.5 * grid.noise(rng, 34.0, 2) * (1 - 0.75 * muscle)
    angle = (0.5 * np.arctan2(sine, cosine) + waviness).astype(np.float32)
    return np.cos(2 * angle), np.sin(2 * angle)


def _thickness(rng: np.random.Generator, grid: Grid) -> Field:
    """Return relative thickness: slow drift, and the faint parallel bands of a chattering knife."""
    height, width = grid.shape
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) * np.float32(grid.coarse_um)
    angle, period_um = rng.uniform(0, np.pi), rng.uniform(90, 160)
    phase = (columns * np.cos(angle) + rows * np.sin(angle)) / np.float32(period_um)
    phase += 0.6 * grid.noise(rng, 600.0)
    bands = 0.02 * np.sin(2 * np.pi * phase)
    return (1 + 0.05 * grid.noise(rng, 700.0, 2) + bands).clip(0.7, 1.4).astype(np.float32)
