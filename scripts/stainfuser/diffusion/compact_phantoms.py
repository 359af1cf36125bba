"""Phantom pairs for the compact diffusion model: one section, stained and scanned twice.

Between two laboratories colour changes by what was stained and not by the colour alone: haem,
mucin and collagen take other dyes in other amounts. That is what no colour operator can follow,
and here the truth is known. Laboratories lie between those that training may see
(`head_phantoms.TRAINING_LABORATORIES`) and a little beside.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.compact_pairs import SET_SIZES, RecolouredPair, finished_pair
from stainfuser.diffusion.head_phantoms import TRAINING_LABORATORIES
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_laboratories import LABORATORIES, Laboratory
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import Section, build_section

SIDE_PX, MPP = 768, 0.5
# Whole factors by which rendered windows are averaged.
FACTORS, FACTOR_SHARES = (1, 2), (0.7, 0.3)
# Rendered around a window, px, for blur and glare.
MARGIN_PX = 16
# Standard deviations: log uptake of each dye, and of each dye by each substance; peaks, nm.
DYE_SPREAD, UPTAKE_SPREAD, PEAK_SPREAD_NM = 0.2, 0.1, 3.0
MIN_TISSUE_FRACTION, ATTEMPTS = 0.2, 12


def draw_sections(count: int, seed: int, *purpose: object) -> list[Section]:
    """Grow sections of tissue."""
    grid = Grid(SIDE_PX, MPP)
    rngs = [generator(seed, "compact_phantoms", *purpose, number) for number in range(count)]
    return [build_section(rng, grid, target_composition(grid), artefacts=False) for rng in rngs]


def draw_phantom_pair(
    sections: list[Section], head: Any, tile_px: int, rng: np.random.Generator
) -> RecolouredPair | None:
    """Draw source, target and truth of two laboratories; None where the head's start is no use.

    The truth keeps the source's focus, noise and glare: sharpness is not for a model to invent.
    """
    sources, targets = SET_SIZES[rng.integers(len(SET_SIZES))]
    here, there = draw_laboratory(rng), draw_laboratory(rng)
    optics = ("blur_um", "sharpening", "glare", "noise", "jpeg")
    same_optics = dataclasses.replace(there, **{name: getattr(here, name) for name in optics})
    factor = int(rng.choice(FACTORS, p=FACTOR_SHARES))
    first, second = (sections[i] for i in rng.integers(0, len(sections), 2))
    source, truth, target = [], [], []
    for _ in range(sources):
        part, noise = _draw_window(first, tile_px * factor, rng), int(rng.integers(2**31))
        for laboratory, tiles in ((here, source), (same_optics, truth)):
            tiles.append(_rendered(part, laboratory, factor, np.random.default_rng(noise)))
    for _ in range(targets):
        target.append(_rendered(_draw_window(second, tile_px * factor, rng), there, factor, rng))
    stacks = [np.stack(tiles) for tiles in (source, truth, target)]
    return finished_pair(*stacks, head, rng)


def draw_laboratory(rng: np.random.Generator) -> Laboratory:
    """Draw a laboratory between those of training: all of its numbers by the same shares."""
    named = [LABORATORIES[name] for name in TRAINING_LABORATORIES]
    shares = rng.dirichlet(np.ones(len(named)))
    mixed: dict[str, Any] = {}
    for field in dataclasses.fields(Laboratory):
        if field.name == "jpeg":
            continue
        values = np.tensordot(shares, [np.asarray(getattr(lab, field.name)) for lab in named], 1)
        mixed[field.name] = _as_field(values)
    uptake = mixed["uptake"] * np.exp(rng.normal(0, DYE_SPREAD, (4, 1)))
    mixed["uptake"] = uptake * np.exp(rng.normal(0, UPTAKE_SPREAD, uptake.shape))
    for name in ("haematoxylin_nm", "eosin_nm"):
        mixed[name] += float(rng.normal(0, PEAK_SPREAD_NM))
    return Laboratory(**mixed, jpeg=named[int(rng.integers(len(named)))].jpeg)


def _as_field(values: NDArray[np.float64]) -> Any:
    if values.ndim == 0:
        return float(values)
    return tuple(float(v) for v in values) if values.ndim == 1 else values


def _draw_window(section: Section, side_px: int, rng: np.random.Generator) -> Section:
    """Cut a window with its margin; one with tissue in it, if that is found."""
    wide = side_px + 2 * MARGIN_PX
    for _ in range(ATTEMPTS):
        top, left = rng.integers(0, SIDE_PX - wide + 1, 2)
        amounts = section.amounts[:, top : top + wide, left : left + wide]
        if (amounts[:5].sum(axis=0) > 0.1).mean() >= MIN_TISSUE_FRACTION:
            break
    labels = section.labels[top : top + wide, left : left + wide]
    return Section(section.grid, np.ascontiguousarray(amounts), section.pen, labels)


def _rendered(
    part: Section, laboratory: Laboratory, factor: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Stain and scan a window, take its margin off and average it."""
    rgb = render(part, laboratory, rng)[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]
    side = len(rgb) // factor
    blocks = rgb.reshape(side, factor, side, factor, 3)
    return np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
