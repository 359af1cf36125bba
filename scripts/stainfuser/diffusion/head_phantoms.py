"""Phantom tissue for training the operator head: nuclei known, three laboratories, recoloured."""

from __future__ import annotations

from stainfuser.diffusion.training_images import TrainingImage, phantom_labels, prepare_image
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_laboratories import LABORATORIES
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import build_section

# The other laboratories are left for tests.
TRAINING_LABORATORIES = ("cedar", "fjord", "mesa")
SIDE_PX, MPP = 1024, 0.5


def draw_phantoms(tile_px: int, seed: int) -> list[TrainingImage]:
    """Return one image per training laboratory, each of tissue of its own."""
    images = []
    grid = Grid(SIDE_PX, MPP)
    for name in TRAINING_LABORATORIES:
        rng = generator(seed, "operator_head", "phantom", name)
        section = build_section(rng, grid, target_composition(grid), artefacts=False)
        rgb = render(section, LABORATORIES[name], rng)
        images.append(
            prepare_image(f"phantom {name}", rgb, tile_px, phantom_labels(section.labels, rgb))
        )
    return images
