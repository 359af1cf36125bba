"""What lies between the cells of a phantom: epithelium, stroma, muscle, vessels, fat.

Drawn from the plan's coarse distance fields and from textures, block by block.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.phantom_cells import Population
from stainfuser.stain.phantom_fields import (
    Field,
    Upsampler,
    cell_walls,
    noise_tile,
    ramp,
    streaks,
    tiled_block,
)
from stainfuser.stain.phantom_grid import CHROMATIN, COLLAGEN, CYTOPLASM, MUCIN
from stainfuser.stain.phantom_layout import Layout

BLOCK_PX = 256
FIBRE_UM = 1.0


def draw_matrix(
    rng: np.random.Generator,
    layout: Layout,
    population: Population,
    amounts: NDArray[np.float32],
    cleared: Field,
) -> None:
    """Add everything around the cells, block by block, in place."""
    matrix = _Matrix(rng, layout, population)
    side = layout.grid.side_px
    starts = range(0, side, BLOCK_PX)
    for top, left in itertools.product(starts, starts):
        rows = slice(top, min(top + BLOCK_PX, side))
        columns = slice(left, min(left + BLOCK_PX, side))
        matrix.draw(amounts[:, rows, columns], cleared[rows, columns], rows, columns)


class _Matrix:
    """Draws everything between the cells; keeps the coarse fields and textures it needs."""

    def __init__(self, rng: np.random.Generator, layout: Layout, population: Population) -> None:
        grid = layout.grid
        self._coarse = Upsampler(grid.shape, (grid.side_px, grid.side_px), grid.step)
        glands, vessels = layout.glands, layout.vessels
        self._fields = {
            "depth": layout.depth_um,
            "gland": glands.depth_um,
            "lumen": np.maximum(glands.lumen_um, -60),
            "basophilia": glands.basophilia,
            "secretion": glands.secretion,
            "cleft": glands.cleft_um,
            "vessel": np.maximum(vessels.lumen_um, -60),
            "wall": vessels.wall_um,
            "filling": vessels.filling,
            "adipocyte": np.minimum(layout.adipocyte_um, 30),
            "muscle": layout.muscle,
            "dense": layout.dense,
            "thickness": layout.thickness,
            "borders": _cell_borders(layout, population),
            "drift": grid.noise(rng, 40.0, 3),
        }
        self._fibres, self._textures = _fibres(rng, layout)
        sizes_um = {"grain": (0.6, 0.5), "granule": (1.6, 0.7), "blotch": (4.5, 0.7)}
        self._tiles = {
            name: (
                noise_tile(rng, 1024, max(size / grid.mpp, 1.2), spread),
                tuple(rng.integers(0, 1024, 2)),
            )
            for name, (size, spread) in sizes_um.items()
        }

    def draw(
        self, amounts: NDArray[np.float32], cleared: Field, rows: slice, columns: slice
    ) -> None:
        """Draw one block: amounts (5, h, w) in place; cleared (h, w)."""
        depth = self._coarse.block(self._fields["depth"], rows, columns)
        if depth.max() < -8:
            amounts[:] = 0
            return
        field = {
            name: self._coarse.block(values, rows, columns) for name, values in self._fields.items()
        }
        field |= {
            name: self._fibres.block(values, rows, columns)
            for name, values in self._textures.items()
        }
        field |= {
            name: tiled_block(tile, rows, columns, phase)
            for name, (tile, phase) in self._tiles.items()
        }
        cover = _coverage(field)
        left = 1 - cleared
        _add_stroma(amounts, field, cover["stroma"] * left)
        _add_muscle(amounts, field, cover["muscle"] * left)
        _add_epithelium(amounts, field, cover["epithelium"], left)
        _add_lumens(amounts, field, cover)
        amounts[COLLAGEN] += cover["adipocyte"] * left * (0.42 + 0.06 * field["granule"])
        edge = 1 + 0.22 * np.exp(-np.maximum(field["depth"], 0) / 7.0)
        grainy = 1 + 0.045 * field["grain"] + 0.05 * field["granule"]
        amounts *= (cover["tissue"] * field["thickness"] * edge * grainy)[None]
        np.maximum(amounts, 0, out=amounts)


def _fibres(rng: np.random.Generator, layout: Layout) -> tuple[Upsampler, dict[str, Field]]:
    """Return fibrils and bundles that follow the plan's directions, on a 1 um grid."""
    grid = layout.grid
    step = max(1, round(FIBRE_UM / grid.mpp))
    side = -(-grid.side_px // step)
    ratio = grid.step // step
    directions = Upsampler(grid.shape, (side, side), ratio)
    angle = 0.5 * np.arctan2(directions.full(layout.sine2), directions.full(layout.cosine2))
    cosine, sine = np.cos(angle), np.sin(angle)
    fields = {}
    for name, scale_um, spacings_um in (
        ("fibril", 0.0, (1.0, 2.5, 6.0)),
        ("bundle", 1.7, (2.5, 6.0, 12.0)),
        ("crack", 2.4, (2.5, 7.0, 15.0)),
    ):
        spots = rng.standard_normal((side, side), dtype=np.float32)
        if scale_um:
            spots = ndimage.gaussian_filter(spots, scale_um / (step * grid.mpp))
        spacings = tuple(spacing / (step * grid.mpp) for spacing in spacings_um)
        smeared = streaks(spots, cosine, sine, spacings)
        if name == "fibril":  # keep fine detail sharp through the interpolation
            smeared = ndimage.spline_filter(smeared, output=np.float32)
        fields[name] = smeared
    return Upsampler((side, side), (grid.side_px, grid.side_px), step), fields


def _cell_borders(layout: Layout, population: Population) -> Field:
    """Return the distance (um) to the borders between epithelial cells on the coarse grid."""
    grid = layout.grid
    kinds = ("epithelial", "vesicular", "mitosis")
    seeds = [population.nuclei[kind].xy for kind in kinds if kind in population.nuclei]
    points = np.concatenate([np.zeros((0, 2)), *seeds]) / grid.step
    inside = (layout.glands.depth_um > -2) & (layout.glands.lumen_um < 2)
    return np.minimum(cell_walls(points, grid.shape, inside) * np.float32(grid.coarse_um), 12)


def _coverage(field: dict[str, Field]) -> dict[str, Field]:
    """Return what each px is part of, in [0, 1]: the structures share the tissue among them."""
    rough = 0.5 * field["granule"] + 0.7 * field["blotch"]
    tissue = ramp(field["depth"] + rough + 1.3 * field["bundle"] + 0.5 * field["fibril"], -0.9, 0.9)
    epithelium = ramp(field["gland"] + 0.25 * rough, -0.6, 0.6)
    lumen = ramp(field["lumen"] + 1.1 * rough, -0.7, 0.7) * epithelium
    gap = (field["gland"] + field["cleft"]) * 0.5 + 0.5 * field["blotch"] + field["bundle"]
    cleft = ramp(gap, -0.8, 0.8) * ramp(field["cleft"], 1.5, 3.0)
    vessel = ramp(field["vessel"] + 0.3 * rough, -0.7, 0.7) * (1 - epithelium)
    ring = ramp(field["vessel"] + field["wall"] + 0.6 * rough, -0.7, 0.7) * (1 - epithelium)
    empty = ramp(field["adipocyte"] + 0.15 * rough, 0.6, 1.5)
    thin = ramp(field["adipocyte"], 0.25, 0.7) * (1 - empty)
    outside = (1 - epithelium) * (1 - ring) * (1 - empty)
    return {
        "tissue": tissue,
        "epithelium": epithelium * (1 - lumen),
        "lumen": lumen,
        "vessel": vessel,
        "muscle": np.maximum(outside * field["muscle"], (ring - vessel).clip(0)) * (1 - empty),
        "stroma": outside * (1 - field["muscle"]) * (1 - cleft),
        "adipocyte": thin * outside,
    }


def _add_stroma(amounts: NDArray[np.float32], field: dict[str, Field], weight: Field) -> None:
    """Collagen: wavy fibrils in bundles, with slits between them, wide where it is loose."""
    dense = field["dense"]
    weave = field["bundle"] + 0.45 * field["fibril"]
    threshold = -0.45 - 1.2 * dense + 0.25 * field["drift"]
    slit = np.clip((threshold - weave) / 0.6, 0, 1)
    crack = np.exp(-((field["crack"] / 0.16) ** 2)) * ramp(
        field["drift"] + field["fibril"], -0.2, 1.2
    )
    body = (0.44 + 0.36 * dense) * (1 + 0.13 * field["drift"])
    body *= 1 + 0.30 * field["fibril"] + 0.26 * field["bundle"]
    body *= 1 - (0.97 - 0.15 * dense) * np.maximum(slit, 0.75 * crack)
    membrane = np.exp(-(((field["gland"] + 1.4) / 1.1) ** 2))
    body += 0.22 * membrane
    amounts[COLLAGEN] += weight * body.clip(0.0)
    amounts[MUCIN] += weight * (0.10 * (1 - dense) * (1 + 0.5 * field["blotch"])).clip(0)


def _add_muscle(amounts: NDArray[np.float32], field: dict[str, Field], weight: Field) -> None:
    """Smooth muscle: denser, finer and straighter than collagen, few slits."""
    body = 0.70 + 0.10 * field["fibril"] + 0.09 * field["bundle"] + 0.04 * field["granule"]
    slit = np.clip((-1.75 - field["bundle"] - 0.3 * field["fibril"]) / 0.5, 0, 1)
    amounts[CYTOPLASM] += weight * (body * (1 - 0.85 * slit)).clip(0)
    amounts[COLLAGEN] += weight * 0.10


def _add_epithelium(
    amounts: NDArray[np.float32], field: dict[str, Field], weight: Field, left: Field
) -> None:
    """Granular cytoplasm, denser towards the apical border, with faint borders between cells."""
    apical = np.exp(-(((field["lumen"] + 0.9) / 1.5) ** 2))
    body = 0.46 + 0.05 * field["granule"] + 0.02 * field["grain"] + 0.06 * field["blotch"]
    body += 0.04 * field["drift"] + 0.22 * apical
    border = np.exp(-((field["borders"] / 0.9) ** 2))
    clear = ramp(field["drift"], -0.4, 0.9)  # here borders are dense lines, there pale slits
    body += border * (0.20 - 0.42 * clear)
    amounts[CYTOPLASM] += weight * left * body.clip(0.02)
    amounts[CHROMATIN] += weight * left * 0.17 * field["basophilia"] * body.clip(0)


def _add_lumens(
    amounts: NDArray[np.float32], field: dict[str, Field], cover: dict[str, Field]
) -> None:
    """Wisps of secretion in glands, a veil of plasma in filled vessels."""
    foam = 0.25 * field["granule"] + 0.9 * field["blotch"] + 1.8 * field["drift"]
    wisps = field["secretion"] * ramp(foam, -0.6, 2.8) * (1 + 0.2 * field["granule"])
    amounts[MUCIN] += cover["lumen"] * 0.55 * wisps
    amounts[CYTOPLASM] += cover["lumen"] * 0.28 * wisps
    plasma = cover["vessel"] * ramp(field["filling"], 0.1, 0.5)
    amounts[CYTOPLASM] += plasma * (0.12 + 0.03 * field["blotch"])
