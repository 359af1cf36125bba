"""A phantom section: amounts of what stains bind to, at full resolution, and nucleus labels.

The section is the same whoever stains it; `phantom_optics.render` turns it into an image.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.phantom_artefacts import add_fold, draw_pen, scatter_dust
from stainfuser.stain.phantom_cells import Population, populate
from stainfuser.stain.phantom_fields import Field
from stainfuser.stain.phantom_grid import (
    BLOOD,
    CHROMATIN,
    CYTOPLASM,
    INK,
    MUCIN,
    SUBSTANCES,
    Grid,
)
from stainfuser.stain.phantom_layout import Composition, plan_tissue
from stainfuser.stain.phantom_matrix import draw_matrix
from stainfuser.stain.phantom_nuclei import (
    NucleusPainter,
    paint_discs,
    stamp,
    stamp_labels,
)
from stainfuser.stain.phantom_nucleus_kinds import NUCLEUS_KINDS

PENS = ("blue", "green", "black")
# A px with less chromatin is no nucleus to the eye.
LEAST_CHROMATIN = 0.06


@dataclasses.dataclass(frozen=True)
class Section:
    """One section on its glass.

    Attributes
    ----------
    grid
        Frame and resolution.
    amounts
        (6, H, W) float32 >= 0: amount of each substance in `SUBSTANCES`, about 1 where dense.
    pen
        Colour of the ink, one of `PENS`.
    labels
        (H, W) uint16: 0, or the number of the nucleus a px belongs to.
    kinds
        The kind of each nucleus that was stamped, by number from 1 on (one of `NUCLEUS_KINDS`);
        empty where it is not known.
    """

    grid: Grid
    amounts: NDArray[np.float32]
    pen: str
    labels: NDArray[np.uint16]
    kinds: tuple[str, ...] = ()


def build_section(
    rng: np.random.Generator, grid: Grid, composition: Composition, *, artefacts: bool
) -> Section:
    """Plan tissue, place its cells and draw both at full resolution.

    `artefacts` adds a fold or two, the mark of a pen and dust.
    """
    layout = plan_tissue(rng, grid, composition)
    population = populate(rng, layout)
    side = grid.side_px
    amounts = np.zeros((len(SUBSTANCES), side, side), np.float32)
    labels = np.zeros((side, side), np.uint16)
    cleared = _stamp_cells(rng, grid, population, amounts, labels)
    draw_matrix(rng, layout, population, amounts[:INK], cleared)
    labels[amounts[CHROMATIN] < LEAST_CHROMATIN] = 0  # what the tissue's edge cuts off
    if artefacts:
        for _ in range(int(rng.integers(1, 3))):
            add_fold(rng, grid, layout.depth_um, amounts[:INK])
        draw_pen(rng, grid, layout.depth_um, amounts[INK])
        scatter_dust(rng, grid, amounts[INK])
    kinds = tuple(name for name, cells in population.nuclei.items() for _ in cells.xy)
    return Section(grid, amounts, PENS[int(rng.integers(len(PENS)))], labels, kinds)


def _stamp_cells(
    rng: np.random.Generator,
    grid: Grid,
    population: Population,
    amounts: NDArray[np.float32],
    labels: NDArray[np.uint16],
) -> Field:
    """Stamp every cell; returns what they displace of the matrix around, (H, W) in [0, 1]."""
    cleared = np.zeros(labels.shape, np.float32)
    corner, bodies = paint_discs(rng, grid.mpp, population.vacuoles, 8.0, 1.5)
    filled = rng.uniform(0.2, 0.7, (len(bodies), 1, 1)).astype(np.float32)
    stamp(amounts[MUCIN], corner, bodies * filled)
    stamp(cleared, corner, bodies * 0.9)
    corner, bodies = paint_discs(rng, grid.mpp, population.plasma_bodies, 8.5, 1.35)
    stamp(amounts[CYTOPLASM], corner, bodies * 0.40)
    stamp(amounts[CHROMATIN], corner, bodies * 0.16)
    stamp(cleared, corner, bodies * 0.85)
    painter = NucleusPainter(rng, grid.mpp)
    number = 1
    for name, cells in population.nuclei.items():
        corner, chromatin, bodies, displaced = painter.paint(NUCLEUS_KINDS[name], cells)
        stamp(amounts[CHROMATIN], corner, chromatin, _overlay)
        stamp(cleared, corner, displaced)
        number = stamp_labels(labels, corner, bodies, number)
    _stamp_red_cells(rng, grid, population, amounts)
    return cleared


def _overlay(under: Field, over: Field, out: Field) -> Field:
    """Add where nuclei overlap in the thickness of the section, as far as there is room."""
    total = under + over
    return np.minimum(total, np.maximum(np.maximum(under, over), 1.45), out=out)


def _stamp_red_cells(
    rng: np.random.Generator, grid: Grid, population: Population, amounts: NDArray[np.float32]
) -> None:
    corner, bodies = paint_discs(rng, grid.mpp, population.red_cells, 6.4, 1.35)
    strength = rng.normal(0.85, 0.12, len(bodies)).clip(0.4, 1.2).astype(np.float32)
    pallor = 1 - 0.22 * bodies**6 * rng.random((len(bodies), 1, 1)).astype(np.float32)
    stamp(amounts[BLOOD], corner, bodies * pallor * strength[:, None, None])
