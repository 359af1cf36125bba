"""Small slides for tests, written without the package's own writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile


def tissue_picture(side_px: int = 1024, seed: int = 0) -> np.ndarray:
    """Return an ellipse of pink stroma with violet nuclei on glass, (S, S, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side_px, :side_px] / side_px - 0.5
    picture = np.full((side_px, side_px, 3), (243, 241, 243), np.float32)
    inside = (x / 0.40) ** 2 + (y / 0.33) ** 2 < 1
    picture[inside] = (226, 160, 198)
    for cy, cx in rng.integers(0, side_px - 10, (side_px * side_px // 1500, 2)):
        patch = np.s_[cy : cy + 8, cx : cx + 8]
        picture[patch][inside[patch]] = (104, 66, 146)
    picture += rng.normal(0, 2, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def write_tiff_slide(
    path: Path,
    rgb: np.ndarray,
    *,
    mpp: float | tuple[float, float] | None = 0.5,
    levels: int = 1,
    aperio: str | None = None,
    **options,
) -> Path:
    """Write a tiled TIFF with resolution tags; `aperio` is its ImageDescription."""
    mpp_xy = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    if mpp_xy is not None:
        options |= {
            "resolution": tuple(10_000 / value for value in mpp_xy),
            "resolutionunit": "CENTIMETER",
        }
    common = {"tile": (256, 256), "photometric": "rgb", "compression": "adobe_deflate"}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            kind = {"subfiletype": 1} if level else {}
            description = {"description": aperio} if aperio else {}
            step = 2**level
            given = {**common, **options, **kind, **description}
            tiff.write(rgb[::step, ::step], metadata=None, **given)
    return path


def overwrite_tags(path: Path, **tags) -> None:
    """Change tags of the first image in place, e.g. ``TileWidth=2**20``."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for name, value in tags.items():
            tiff.pages[0].tags[name].overwrite(value)


def damage_tile(path: Path, index: int) -> None:
    """Fill one compressed tile of the first image with bytes no decoder accepts."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        offset, count = page.dataoffsets[index], page.databytecounts[index]
    with open(path, "r+b") as handle:
        handle.seek(offset)
        handle.write(b"\xff" * count)
