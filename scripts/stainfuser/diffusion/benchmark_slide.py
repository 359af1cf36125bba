"""The slide of the speed benchmark: seeded phantom tissue on glass, as large as wanted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.io.masks import write_mask
from stainfuser.io.pyramid_writer import PyramidWriter
from stainfuser.io.slide_layout import Block, SlideSpec
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import checked_grid
from stainfuser.stain.phantom_laboratories import find_laboratory
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import build_section

MPP = 0.5
# Tissue is grown once and repeated, mirrored so that the source has no seams.
SWATCH_PX = 2048
SOURCE_LABORATORY, TARGET_LABORATORY = "cedar", "harbour"
GLASS, GLASS_NOISE = (243.0, 241.0, 244.0), 1.2
UM_PER_MASK_PX = 8.0


def phantom_swatch(seed: int, laboratory: str, purpose: str) -> NDArray[np.uint8]:
    """Return (SWATCH_PX, SWATCH_PX, 3) uint8 of tissue as a laboratory stains and scans it."""
    grid = checked_grid("benchmark slide", SWATCH_PX, MPP)
    rng = generator(seed, "benchmark", purpose)
    section = build_section(rng, grid, target_composition(grid), artefacts=False)
    noise = generator(seed, "benchmark noise", purpose)
    return render(section, find_laboratory("benchmark", laboratory), noise)


def write_benchmark_slide(
    path: Path,
    mask_path: Path,
    swatch: NDArray[np.uint8],
    seed: int,
    *,
    side_px: int,
    tissue_fraction: float,
    quality: int,
) -> None:
    """Write a square slide whose middle is tissue, and its tissue mask.

    Parameters
    ----------
    swatch
        (S, S, 3) uint8 RGB, repeated all over the tissue.
    tissue_fraction
        Share of the slide that is tissue: a disc, or all of the slide from pi/4 on.
    """
    rng = generator(seed, "benchmark", "glass")
    noise = rng.normal(0.0, GLASS_NOISE, (1024, 1024, 3))
    glass = np.clip(np.rint(np.array(GLASS) + noise), 0, 255).astype(np.uint8)
    double = np.pad(swatch, ((0, len(swatch)), (0, swatch.shape[1]), (0, 0)), mode="symmetric")
    spec = SlideSpec(side_px, side_px, MPP, 20.0, quality)
    with (
        tempfile.TemporaryDirectory(dir=path.parent) as folder,
        PyramidWriter(path, Path(folder) / "work", spec, key="", threads=2) as writer,
    ):
        for block in writer.remaining():
            writer.write(block, _paint(block, side_px, tissue_fraction, double, glass))
        writer.finish()
    count = max(1, round(side_px * MPP / UM_PER_MASK_PX))
    centres = (np.arange(count) + 0.5) * side_px / count
    write_mask(mask_path, _is_tissue(centres, centres, side_px, tissue_fraction), {})


def _paint(
    block: Block,
    side_px: int,
    tissue_fraction: float,
    tissue: NDArray[np.uint8],
    glass: NDArray[np.uint8],
) -> NDArray[np.uint8]:
    y, x = (
        np.arange(start, start + count)
        for start, count in ((block.y_px, block.height_px), (block.x_px, block.width_px))
    )
    inside = _is_tissue(y, x, side_px, tissue_fraction)[..., None]
    parts = [picture[y % len(picture)][:, x % len(picture)] for picture in (tissue, glass)]
    return np.where(inside, *parts)


def _is_tissue(
    y: NDArray[np.floating], x: NDArray[np.floating], side_px: int, tissue_fraction: float
) -> NDArray[np.bool_]:
    if tissue_fraction >= np.pi / 4:
        return np.ones((len(y), len(x)), bool)
    middle = side_px / 2
    return (y[:, None] - middle) ** 2 + (x - middle) ** 2 < tissue_fraction / np.pi * side_px**2
