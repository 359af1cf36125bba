"""Look at a finished slide file as its users will, before it gets its name."""

from __future__ import annotations

from pathlib import Path

from stainfuser.io.slide_layout import SlideSpec


def verify_slide(path: Path, spec: SlideSpec) -> None:
    """Open a finished file as users will and compare it with `spec`.

    Raises
    ------
    RuntimeError
        The file does not read back as it was meant: a defect of the writer or of the disk.
    """
    import openslide

    with openslide.OpenSlide(str(path)) as slide:
        found = (slide.level_dimensions, slide.properties.get("openslide.vendor"))
        mpp = float(slide.properties.get("openslide.mpp-x", "nan"))
        for level, (width_px, height_px) in enumerate(slide.level_dimensions):
            corner = (spec.width_px - 1, spec.height_px - 1) if level == 0 else (0, 0)
            slide.read_region(corner, level, (min(width_px, 64), min(height_px, 64)))
    if found != (tuple(spec.level_sizes_px()), "aperio") or abs(mpp / spec.mpp - 1) > 1e-6:
        raise RuntimeError(f"the written slide reads back as {found}, {mpp} um/px")
