"""Make the reference image of the demo cohort: other tissue in the target laboratory's look."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stainfuser.io.images import write_image
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import checked_grid
from stainfuser.stain.phantom_laboratories import find_laboratory
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import build_section
from stainfuser.stamps import make_stamp


def make_demo_target(
    *,
    image_path: str | Path,
    seed: int,
    slides: Mapping[str, str],
    target_laboratory: str,
    slide_px: int,
    mpp: float,
    target_px: int,
) -> None:
    """Draw tissue of no slide of the cohort, stained and scanned by the target laboratory.

    Parameters
    ----------
    image_path
        PNG, (target_px, target_px, 3) RGB at `mpp` um per px, without pen marks and folds.
    seed
        Seed of the cohort.
    slides, slide_px
        Not used here: they belong to the slides of the same section.
    target_laboratory
        Laboratory whose look the cohort is normalised to.
    mpp
        Resolution, um per px.
    target_px
        Side of the image, px.

    Raises
    ------
    ConfigError
        An unknown laboratory, or a size or resolution that holds no tissue.
    """
    laboratory = find_laboratory("demo.target_laboratory", target_laboratory)
    grid = checked_grid("demo.target_px", target_px, mpp)
    rng = generator(seed, "target tissue")
    section = build_section(rng, grid, target_composition(grid), artefacts=False)
    rgb = render(section, laboratory, generator(seed, "target noise"))
    options = {"target_laboratory": target_laboratory, "mpp": mpp, "target_px": target_px}
    stamp = make_stamp("make_demo_target", {"seed": seed, **options})
    write_image(image_path, rgb, text=stamp)
