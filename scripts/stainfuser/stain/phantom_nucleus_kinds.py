"""Kinds of nucleus a phantom holds, and what sets them apart under the microscope."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class NucleusKind:
    """Shape and chromatin of one kind of nucleus; lengths in um, pairs are mean and deviation.

    Attributes
    ----------
    length_um, aspect
        Long axis, and long over short axis.
    bend, ragged
        Curvature of the long axis; irregularity of the outline, both relative to the short axis.
    pointed
        How much the ends taper, 0 is an ellipse.
    density
        Amount of chromatin per area, 1 is a dark nucleus.
    base, rim, grain, clump
        How chromatin is spread: evenly, along the envelope, as fine grains, as clumps.
    nucleoli
        Mean number of nucleoli.
    halo
        Clear ring that shrinkage leaves around the nucleus, in [0, 1].
    faint
        Fraction of nuclei only grazed by the section: pale and without a sharp edge.
    """

    length_um: tuple[float, float]
    aspect: tuple[float, float]
    bend: float
    ragged: float
    pointed: float
    density: tuple[float, float]
    base: float
    rim: float
    grain: float
    clump: float
    nucleoli: float
    halo: float
    faint: float


# fmt: off
NUCLEUS_KINDS = {
    "epithelial": NucleusKind(
        length_um=(8.4, 0.9), aspect=(1.45, 0.18), bend=0.0, ragged=0.09, pointed=0.0,
        density=(0.86, 0.14), base=0.66, rim=0.3, grain=0.11, clump=0.16,
        nucleoli=0.4, halo=0.05, faint=0.12,
    ),
    "vesicular": NucleusKind(
        length_um=(9.3, 1.3), aspect=(1.25, 0.15), bend=0.0, ragged=0.1, pointed=0.0,
        density=(0.78, 0.14), base=0.5, rim=0.44, grain=0.11, clump=0.2,
        nucleoli=1.2, halo=0.05, faint=0.15,
    ),
    "lymphocyte": NucleusKind(
        length_um=(5.7, 0.5), aspect=(1.1, 0.07), bend=0.0, ragged=0.07, pointed=0.0,
        density=(1.15, 0.14), base=0.8, rim=0.22, grain=0.12, clump=0.28,
        nucleoli=0.0, halo=0.25, faint=0.06,
    ),
    "centroblast": NucleusKind(
        length_um=(8.0, 0.9), aspect=(1.15, 0.1), bend=0.0, ragged=0.09, pointed=0.0,
        density=(0.7, 0.1), base=0.52, rim=0.42, grain=0.11, clump=0.2,
        nucleoli=1.6, halo=0.1, faint=0.12,
    ),
    "plasma": NucleusKind(
        length_um=(5.8, 0.5), aspect=(1.1, 0.06), bend=0.0, ragged=0.05, pointed=0.0,
        density=(1.05, 0.1), base=0.68, rim=0.3, grain=0.08, clump=0.48,
        nucleoli=0.2, halo=0.0, faint=0.05,
    ),
    "fibroblast": NucleusKind(
        length_um=(13.5, 3.8), aspect=(6.6, 2.4), bend=0.7, ragged=0.08, pointed=0.5,
        density=(0.92, 0.24), base=0.72, rim=0.22, grain=0.11, clump=0.12,
        nucleoli=0.1, halo=0.35, faint=0.22,
    ),
    "plump": NucleusKind(
        length_um=(10.5, 1.8), aspect=(2.2, 0.4), bend=0.35, ragged=0.11, pointed=0.3,
        density=(0.62, 0.13), base=0.52, rim=0.4, grain=0.12, clump=0.16,
        nucleoli=0.7, halo=0.15, faint=0.25,
    ),
    "muscle": NucleusKind(
        length_um=(14.0, 2.6), aspect=(4.4, 0.8), bend=0.3, ragged=0.05, pointed=-0.15,
        density=(0.74, 0.13), base=0.64, rim=0.28, grain=0.12, clump=0.1,
        nucleoli=0.1, halo=0.1, faint=0.2,
    ),
    "endothelial": NucleusKind(
        length_um=(9.5, 2.0), aspect=(3.8, 0.8), bend=0.6, ragged=0.07, pointed=0.35,
        density=(0.95, 0.15), base=0.78, rim=0.2, grain=0.1, clump=0.12,
        nucleoli=0.0, halo=0.0, faint=0.1,
    ),
    "mitosis": NucleusKind(
        length_um=(8.5, 1.2), aspect=(2.4, 0.8), bend=0.3, ragged=0.28, pointed=0.0,
        density=(1.45, 0.1), base=0.95, rim=0.0, grain=0.1, clump=0.35,
        nucleoli=0.0, halo=0.85, faint=0.0,
    ),
    "pyknotic": NucleusKind(
        length_um=(4.2, 0.7), aspect=(1.2, 0.12), bend=0.0, ragged=0.12, pointed=0.0,
        density=(1.45, 0.12), base=1.0, rim=0.0, grain=0.05, clump=0.05,
        nucleoli=0.0, halo=0.75, faint=0.0,
    ),
}
# fmt: on
