"""Small pieces of phantom tissue, the same in the stain of every laboratory."""

from __future__ import annotations

from functools import cache

import numpy as np

from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_laboratories import LABORATORIES
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import Section, build_section

MPP = 0.5
GLASS_RGB = (243, 241, 243)


def he_picture(side_px: int, laboratory: str, seed: int = 3) -> np.ndarray:
    """Return (side, side, 3) uint8 H&E tissue as a laboratory stains and scans it."""
    noise = generator(seed, "noise", laboratory)
    return render(_section(side_px, seed), LABORATORIES[laboratory], noise)


def on_glass(tissue: np.ndarray, side_px: int) -> np.ndarray:
    """Return the tissue in the middle of clean glass, (side, side, 3)."""
    picture = np.full((side_px, side_px, 3), GLASS_RGB, np.uint8)
    start = (side_px - len(tissue)) // 2
    picture[start : start + len(tissue), start : start + len(tissue)] = tissue
    return picture


@cache
def _section(side_px: int, seed: int) -> Section:
    grid = Grid(side_px, MPP)
    rng = generator(seed, "tissue")
    return build_section(rng, grid, target_composition(grid), artefacts=False)
