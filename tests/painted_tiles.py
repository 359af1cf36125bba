"""Small painted H&E tiles: fibres, nuclei and lumens in the stain of an imaginary laboratory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.io.tile_store import open_tile_writer
from stainfuser.stain.optical_density import od_to_rgb

# Optical densities of nuclei, of stroma and of the glass.
LABORATORIES = {
    "violet": ((0.85, 1.05, 0.60), (0.18, 0.62, 0.40), (0.03, 0.03, 0.03)),
    "blue": ((1.20, 1.10, 0.50), (0.25, 0.45, 0.20), (0.04, 0.04, 0.04)),
    "pale": ((0.55, 0.75, 0.40), (0.10, 0.34, 0.24), (0.02, 0.02, 0.02)),
}


def paint_tile(
    seed: int,
    laboratory: str = "violet",
    side_px: int = 64,
    nuclear_fraction: float = 0.2,
    lumen: bool = False,
) -> NDArray[np.uint8]:
    """Return a (side_px, side_px, 3) uint8 RGB tile; the same seed paints the same tissue."""
    rng = np.random.default_rng(seed)
    nuclei_od, stroma_od, glass_od = (np.array(od) for od in LABORATORIES[laboratory])
    blobs = ndimage.gaussian_filter(rng.normal(size=(side_px, side_px)), 3.0, mode="wrap")
    nuclei = blobs > np.quantile(blobs, 1 - nuclear_fraction)
    nuclei = ndimage.gaussian_filter(nuclei.astype(float), 0.7)[..., None]
    fibres = ndimage.gaussian_filter(rng.normal(size=(side_px, side_px)), (6.0, 1.0), mode="wrap")
    fibres = 1.0 + 0.25 * (fibres / fibres.std())[..., None]
    grain = 1.0 + 0.1 * rng.normal(size=(side_px, side_px, 1))
    od = nuclei * nuclei_od * grain + (1 - nuclei) * stroma_od * np.clip(fibres, 0.3, 2.0)
    if lumen:
        y, x = np.mgrid[:side_px, :side_px] - side_px // 2
        od = np.where((np.hypot(x, y) < side_px / 3)[..., None], 0.0, od)
    return od_to_rgb(od + glass_od)


def write_tiles(
    path: Path, slide: str, tiles: list[NDArray[np.uint8]], mpp: float = 0.5, side_px: int = 64
) -> Path:
    """Write a tile store; tile i lies at x = side x i, y = 0."""
    attributes = {
        "slide": slide,
        "mpp": mpp,
        "level0_tile_px": side_px,
        "source_sha256": "0" * 64,
    }
    with open_tile_writer(path, tile_px=side_px, attributes=attributes) as writer:
        for index, tile in enumerate(tiles):
            writer.append(tile, side_px * index, 0)
    return path
