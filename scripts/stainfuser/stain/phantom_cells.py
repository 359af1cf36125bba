"""Where cells lie: every kind of nucleus, red cell and vacuole placed in a phantom's plan."""

from __future__ import annotations

import dataclasses

import numpy as np

from stainfuser.stain.phantom_fields import (
    Field,
    Points,
    lattice,
    ramp,
    sample,
    without_crowding,
)
from stainfuser.stain.phantom_layout import Layout
from stainfuser.stain.phantom_nuclei import Cells


@dataclasses.dataclass(frozen=True)
class Population:
    """All cells of one phantom.

    Attributes
    ----------
    nuclei
        Name of a `NucleusKind` → its cells.
    red_cells, vacuoles
        Erythrocytes, and the mucin vacuoles of goblet cells.
    plasma_bodies
        Cytoplasm of plasma cells, beside their nuclei.
    """

    nuclei: dict[str, Cells]
    red_cells: Cells
    vacuoles: Cells
    plasma_bodies: Cells


@dataclasses.dataclass
class _Draft:
    """Candidate nuclei in order of precedence: places (px), angles, kinds, free radius (px)."""

    xy: list[Points] = dataclasses.field(default_factory=list)
    angle: list[np.ndarray] = dataclasses.field(default_factory=list)
    kind: list[np.ndarray] = dataclasses.field(default_factory=list)
    reach: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, xy: Points, angle: np.ndarray, kind: str, reach_px: float) -> None:
        self.xy.append(xy)
        self.angle.append(np.broadcast_to(angle, len(xy)).astype(np.float64))
        self.kind.append(np.full(len(xy), kind, dtype="U12"))
        self.reach.append(np.full(len(xy), reach_px))


def populate(rng: np.random.Generator, layout: Layout) -> Population:
    """Place every cell of a phantom."""
    draft = _Draft()
    red_cells = _red_cells(rng, layout)
    _add_endothelium(rng, layout, draft)
    vacuoles = _add_epithelium(rng, layout, draft)
    _add_solid_cells(rng, layout, draft)
    _add_adipocyte_nuclei(rng, layout, draft)
    _add_lymphocytes(rng, layout, draft)
    _add_stromal_cells(rng, layout, draft)
    xy, angle = np.concatenate(draft.xy), np.concatenate(draft.angle)
    kind, reach = np.concatenate(draft.kind), np.concatenate(draft.reach)
    keep = (sample(layout.depth_um, xy, layout.grid.step) > 3.0) & without_crowding(xy, reach)
    xy, angle, kind = xy[keep], angle[keep], kind[keep]
    names = dict.fromkeys(kind.tolist())
    nuclei = {name: Cells(xy[kind == name], angle[kind == name]) for name in names}
    return Population(nuclei, red_cells, vacuoles, _plasma_bodies(rng, layout, nuclei))


def _plasma_bodies(rng: np.random.Generator, layout: Layout, nuclei: dict[str, Cells]) -> Cells:
    """Return the cytoplasm beside each plasma cell's eccentric nucleus."""
    cells = nuclei.get("plasma", Cells(np.zeros((0, 2)), np.zeros(0)))
    turn = rng.uniform(0, 2 * np.pi, len(cells.xy))
    aside = 2.3 / layout.grid.mpp * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return Cells(cells.xy + aside, turn)


def _slope(field: Field, xy: Points, step: int) -> np.ndarray:
    """Return the direction (n,) in which the coarse field rises at full-resolution points."""
    index = np.clip((xy / step).astype(int), 1, np.array(field.shape)[::-1] - 2)
    x, y = index.T
    dx = field[y, x + 1] - field[y, x - 1]
    dy = field[y + 1, x] - field[y - 1, x]
    return np.arctan2(dy, dx)


def _along_contour(
    rng: np.random.Generator, layout: Layout, field: Field, level: float, spacing_um: float
) -> Points:
    """Return points (px) along the field's level set, `spacing_um` apart with some jitter."""
    from skimage.measure import find_contours

    grid = layout.grid
    points = []
    for contour in find_contours(field, level):
        line = contour[:, ::-1] * grid.coarse_um
        arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        count = int(arc[-1] / spacing_um)
        if count:
            at = (np.arange(count) + rng.uniform() + rng.normal(0, 0.13, count)) * spacing_um
            points.append(np.stack([np.interp(at, arc, line[:, axis]) for axis in (0, 1)], axis=1))
    found = np.concatenate(points) if points else np.zeros((0, 2))
    return (found + grid.coarse_um / 2) / grid.mpp


def _add_epithelium(rng: np.random.Generator, layout: Layout, draft: _Draft) -> Cells:
    """Palisades along basement membranes; returns the goblet vacuoles among them."""
    glands, grid = layout.glands, layout.grid
    levels = (6.5, 13.5, 20.5, 27.5)
    for layer, level in enumerate(levels):
        xy = _along_contour(rng, layout, glands.depth_um, level, 5.0 if layer == 0 else 5.8)
        rise = _slope(glands.depth_um, xy, grid.step)
        shake = rng.normal(0, (1.3 if layer == 0 else 2.2) / grid.mpp, len(xy))
        xy = xy + shake[:, None] * np.stack([np.cos(rise), np.sin(rise)], axis=1)
        chance = np.clip(sample(glands.layers, xy, grid.step) - layer, 0, 1)
        keep = rng.random(len(xy)) < chance * (sample(glands.lumen_um, xy, grid.step) < -3.5)
        angle = rise + rng.normal(0, 0.2 + 0.15 * layer, len(xy))
        _add_mixed(rng, layout, draft, xy[keep], angle[keep])
    xy = _along_contour(rng, layout, glands.depth_um, 15.0, 8.2)
    rise = _slope(glands.depth_um, xy, grid.step)
    keep = rng.random(len(xy)) < sample(glands.goblet, xy, grid.step)
    keep &= sample(glands.lumen_um, xy, grid.step) < -4.0
    return Cells(xy[keep], rise[keep])


def _add_mixed(
    rng: np.random.Generator, layout: Layout, draft: _Draft, xy: Points, angle: np.ndarray
) -> None:
    """Add epithelial nuclei: vesicular where layers are many, now and then a mitosis."""
    layers = sample(layout.glands.layers, xy, layout.grid.step)
    draw = rng.random(len(xy))
    vesicular = rng.random(len(xy)) < np.clip((layers - 1.2) * 0.6, 0.04, 0.85)
    rare = draw < 0.0012 * layers
    dead = (draw > 0.996) & ~rare
    usual = ~rare & ~dead
    reach_px = 4.3 / layout.grid.mpp
    draft.add(xy[rare], rng.uniform(0, np.pi, rare.sum()), "mitosis", 9.0 / layout.grid.mpp)
    draft.add(xy[dead], angle[dead], "pyknotic", 6.5 / layout.grid.mpp)
    draft.add(xy[usual & ~vesicular], angle[usual & ~vesicular], "epithelial", reach_px)
    draft.add(xy[usual & vesicular], angle[usual & vesicular], "vesicular", 5.6 / layout.grid.mpp)


def _add_solid_cells(rng: np.random.Generator, layout: Layout, draft: _Draft) -> None:
    """Fill epithelium deeper than its palisade, where there is no lumen."""
    glands, grid = layout.glands, layout.grid
    xy = _scatter(rng, layout, 7.6)
    inner = sample(glands.depth_um, xy, grid.step) > 14.0
    solid = sample(glands.lumen_um, xy, grid.step) < -9.0
    solid &= sample(glands.layers, xy, grid.step) > 1.8
    xy = xy[inner & solid]
    _add_mixed(rng, layout, draft, xy, rng.uniform(0, np.pi, len(xy)))


def _scatter(rng: np.random.Generator, layout: Layout, spacing_um: float) -> Points:
    side = layout.grid.side_px
    return lattice(rng, (side, side), spacing_um / layout.grid.mpp, 0.5)


def _fibre_angle(rng: np.random.Generator, layout: Layout, xy: Points, spread: float) -> np.ndarray:
    step = layout.grid.step
    angle = 0.5 * np.arctan2(sample(layout.sine2, xy, step), sample(layout.cosine2, xy, step))
    return angle + rng.normal(0, spread, len(xy))


def _free_stroma(layout: Layout, xy: Points) -> np.ndarray:
    step = layout.grid.step
    free = sample(layout.glands.depth_um, xy, step) < -2.5
    free &= sample(layout.vessels.lumen_um, xy, step) < -1.5
    return free & (sample(layout.adipocyte_um, xy, step) < 0.9)


def _add_stromal_cells(rng: np.random.Generator, layout: Layout, draft: _Draft) -> None:
    """Fibroblasts along the fibres, muscle nuclei in muscle, flat cells hugging glands."""
    mpp, step = layout.grid.mpp, layout.grid.step
    xy = _along_contour(rng, layout, layout.glands.depth_um, -4.0, 17.0)
    xy = xy[_free_stroma(layout, xy) & (rng.random(len(xy)) < 0.7)]
    draft.add(xy, _fibre_angle(rng, layout, xy, 0.12), "fibroblast", 7.0 / mpp)
    xy = _scatter(rng, layout, 11.5)
    xy = xy[_free_stroma(layout, xy)]
    muscle = sample(layout.muscle, xy, step) > 0.5
    cellular = 0.55 - 0.30 * sample(layout.dense, xy, step)
    keep = rng.random(len(xy)) < np.where(muscle, 0.42, cellular)
    plump = rng.random(len(xy)) < 0.25
    angle = _fibre_angle(rng, layout, xy, 0.2)
    for name, chosen in (
        ("muscle", keep & muscle),
        ("plump", keep & ~muscle & plump),
        ("fibroblast", keep & ~muscle & ~plump),
    ):
        draft.add(xy[chosen], angle[chosen], name, 6.5 / mpp)


def _add_lymphocytes(rng: np.random.Generator, layout: Layout, draft: _Draft) -> None:
    """Lymphocytes by their chance, plasma cells among them, blasts at the heart of aggregates."""
    mpp, step = layout.grid.mpp, layout.grid.step
    xy = _scatter(rng, layout, 5.4)
    chance = sample(layout.lymph, xy, step).astype(np.float64)
    depth = sample(layout.glands.depth_um, xy, step)
    chance[depth > 0] *= 0.03
    free = (sample(layout.vessels.lumen_um, xy, step) < -1.0) & (depth < 12)
    free &= sample(layout.adipocyte_um, xy, step) < 0.9
    xy, chance = xy[free], chance[free]
    taken = rng.random(len(chance)) < chance
    xy, chance = xy[taken], chance[taken]
    draw = rng.random(len(xy))
    plasma = (draw < 0.16) & (chance < 0.6)
    blast = (draw > 0.86) & (chance > 0.85)
    angle = rng.uniform(0, np.pi, len(xy))
    usual = ~plasma & ~blast
    draft.add(xy[blast], angle[blast], "centroblast", 6.2 / mpp)
    draft.add(xy[plasma], angle[plasma], "plasma", 8.0 / mpp)
    draft.add(xy[usual], angle[usual], "lymphocyte", 4.7 / mpp)


def _add_endothelium(rng: np.random.Generator, layout: Layout, draft: _Draft) -> None:
    """Flat nuclei on the lumen side of vessels, and the muscle of their walls."""
    mpp, step = layout.grid.mpp, layout.grid.step
    lumen = layout.vessels.lumen_um
    for level, spacing_um, name, least_wall in (
        (-1.0, 13.0, "endothelial", 0.0),
        (-5.0, 13.0, "muscle", 6.0),
        (-10.0, 14.0, "muscle", 12.0),
    ):
        xy = _along_contour(rng, layout, np.maximum(lumen, -60.0), level, spacing_um)
        keep = sample(layout.vessels.wall_um, xy, step) >= least_wall
        keep &= sample(layout.glands.depth_um, xy, step) < -4
        xy = xy[keep & (rng.random(len(xy)) < 0.8)]
        tangent = _slope(lumen, xy, step) + np.pi / 2
        draft.add(xy, tangent + rng.normal(0, 0.1, len(xy)), name, 7.0 / mpp)


def _add_adipocyte_nuclei(rng: np.random.Generator, layout: Layout, draft: _Draft) -> None:
    """Flat nuclei pressed against adipocyte walls."""
    mpp, step = layout.grid.mpp, layout.grid.step
    xy = _scatter(rng, layout, 9.0)
    wall = sample(layout.adipocyte_um, xy, step)
    keep = (wall < 1.3) & (sample(layout.fat, xy, step) > 0.4)
    keep &= (sample(layout.glands.depth_um, xy, step) < -4) & (rng.random(len(xy)) < 0.3)
    xy = xy[keep]
    angle = _slope(layout.adipocyte_um, xy, step) + np.pi / 2
    draft.add(xy, angle, "endothelial", 8.0 / mpp)


def _red_cells(rng: np.random.Generator, layout: Layout) -> Cells:
    """Pack red cells into vessels by their filling, and spill a few into the stroma."""
    step = layout.grid.step
    xy = _scatter(rng, layout, 5.6)
    inside = sample(layout.vessels.lumen_um, xy, step)
    bleeding = ramp(layout.grid.noise(rng, 70.0, 2), 1.9, 2.6) * (layout.depth_um > 8)
    spilled = np.where(_free_stroma(layout, xy), 0.6 * sample(bleeding, xy, step), 0.0)
    chance = np.where(inside > 1.2, sample(layout.vessels.filling, xy, step), spilled)
    keep = (rng.random(len(xy)) < chance) & (sample(layout.glands.depth_um, xy, step) < -4)
    keep &= sample(layout.depth_um, xy, step) > 4
    return Cells(xy[keep], rng.uniform(0, np.pi, int(keep.sum())))
