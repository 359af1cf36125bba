"""Phantom tissue with its nuclei outlined and classified, to train and test segmentation on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_tissue import Section, build_section

# Classes of nuclei, coarser than CoNIC's: phantoms hold few plasma cells and no granulocytes, and
# the mean over classes would hang on them.
KINDS_OF_CLASS = {
    "epithelial": ("epithelial", "vesicular", "mitosis", "pyknotic"),
    "inflammatory": ("lymphocyte", "centroblast", "plasma"),
    "connective": ("fibroblast", "plump", "muscle", "endothelial"),
}
NUCLEUS_CLASSES = tuple(KINDS_OF_CLASS)
_CLASS_OF_KIND = {
    kind: number for number, kinds in enumerate(KINDS_OF_CLASS.values(), 1) for kind in kinds
}


def grow_tissue(rng: np.random.Generator, side_px: int, mpp: float) -> Section:
    """Grow a piece of tissue of every region, without artefacts, (side_px, side_px)."""
    grid = Grid(side_px, mpp)
    return build_section(rng, grid, target_composition(grid), artefacts=False)


def classified_labels(section: Section) -> NDArray[np.int32]:
    """Return (H, W, 2) int32: the number of each nucleus and its class, 1 for the first.

    Raises `ValueError` for a section whose kinds of nuclei are not known.
    """
    if int(section.labels.max(initial=0)) > len(section.kinds):
        raise ValueError("a section with the kind of every nucleus expected")
    classes = np.array([0, *(_CLASS_OF_KIND[kind] for kind in section.kinds)], np.int32)
    instances = section.labels.astype(np.int32)
    return np.stack([instances, classes[instances]], axis=2)
