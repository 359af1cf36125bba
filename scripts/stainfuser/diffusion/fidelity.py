"""How near the operator of a slide comes to rendering it, measured on a few of its tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import Change, Piece, make_change
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.planning import Plan
from stainfuser.diffusion.rendering import Renderer, TilesInMemory
from stainfuser.diffusion.slide_planning import MaskedSlide
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.io.regions import RegionReader
from stainfuser.io.slide_layout import Block
from stainfuser.stain.blend import glass_to_tissue
from stainfuser.stain.metrics import ciede2000_map
from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.structure_guard import guard_reach_px

# Less tissue in a tile than this says little.
LEAST_TISSUE_FRACTION = 0.1


def fidelity_of(
    plan: Plan,
    masked: MaskedSlide,
    model: StageModel,
    options: NormalizeOptions,
    reader: RegionReader,
) -> dict[str, Any] | None:
    """Return `measure_fidelity` of a slide; None where there is nothing to compare.

    An operator that was fitted to the model has its residual instead.
    """
    is_told = options.fidelity_tiles and plan.operator_from == "head" and model.can_render
    if not is_told:
        return None
    view = masked.view(plan.model_mpp)
    renderer = model.taught_renderer(plan, view, reader, options)
    return measure_fidelity(plan, view, options, renderer, reader)


def measure_fidelity(
    plan: Plan,
    view: SlideView,
    options: NormalizeOptions,
    renderer: Renderer,
    reader: RegionReader,
) -> dict[str, Any] | None:
    """Compare what the operator and what rendering make of `options.fidelity_tiles` tiles.

    Both go the way every pixel of the slide goes, the structure guard included. The model knows
    the slide by the plan's sample, as the operator does. A tile counts where no other overlaps it,
    so that each costs one call of the model.

    Returns the median over the tiles of their median CIEDE2000 in tissue, the largest of these,
    and their number; None if no tile holds tissue.
    """
    white_od = rgb_to_od(np.rint(np.array(plan.background_rgb)).astype(np.uint8))
    operator, rendered = (
        make_change(replace(plan, mode_used=mode), view, options, lambda: renderer, reader, memory)
        for mode, memory in (("operator", TilesInMemory()), ("render", TilesInMemory()))
    )
    medians = []
    for block in _middles(plan.tiles, view, options):
        source = np.empty((block.height_px, block.width_px, 4), np.uint8)
        reader.read_rgbx(block.x_px, block.y_px, source)
        tissue = glass_to_tissue(rgb_to_od(source[..., :3]) - white_od) > 0.5
        if tissue.mean() < LEAST_TISSUE_FRACTION:
            continue
        results = [_changed(change, block, source) for change in (operator, rendered)]
        medians.append(float(np.median(ciede2000_map(*results)[tissue])))
    if not medians:
        return None
    return {
        "median_de": round(float(np.median(medians)), 4),
        "worst_tile_de": round(max(medians), 4),
        "tiles": len(medians),
    }


def _middles(
    corners: Sequence[Sequence[int]], view: SlideView, options: NormalizeOptions
) -> list[Block]:
    """Return the middles of grid tiles that hold sampled places, spread over these, level-0 px.

    In rows from top to bottom, as the plane wants its areas. Of each part of the slide the one with
    most tissue is taken.
    """
    stride = options.tile_px - options.overlap_px
    cells = sorted({(y // stride, x // stride) for x, y in corners})
    middles = [block for block in (_middle(*cell, view, options) for cell in cells) if block]
    runs = np.array_split(np.arange(len(middles)), min(options.fidelity_tiles, len(middles)) or 1)
    tissue = [view.weight_of_place(*_place(block)).mean() for block in middles]
    return [middles[max(run, key=lambda i: tissue[i])] for run in runs if len(run)]


def _middle(row: int, column: int, view: SlideView, options: NormalizeOptions) -> Block | None:
    """Return the part of a grid tile that no other tile reaches, or None beyond the slide."""
    stride = options.tile_px - options.overlap_px
    margin = options.overlap_px + guard_reach_px(round(options.structure_guard_um / view.plane_mpp))
    margin += 2  # of the interpolation
    x_px, y_px = (math.ceil((number * stride + margin) * view.scale) for number in (column, row))
    side_px = math.floor((options.tile_px - 2 * margin) * view.scale)
    width_px, height_px = min(side_px, view.width_px - x_px), min(side_px, view.height_px - y_px)
    if min(width_px, height_px) <= 0:
        return None
    return Block(0, x_px, y_px, width_px, height_px)


def _place(block: Block) -> tuple[int, int, int, int]:
    return block.x_px, block.y_px, block.width_px, block.height_px


def _changed(change: Change | None, block: Block, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
    assert change is not None  # a plan that changes nothing is not measured
    pixels = source.copy()
    change.prepare(block)
    everywhere = np.full(pixels.shape[:2], 255, np.uint8)
    change.apply(Piece(*_place(block)), pixels, everywhere)
    return np.ascontiguousarray(pixels[..., :3])
