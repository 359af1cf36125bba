"""Make one slide of the demo cohort, its truth and the outlines of its nuclei."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from stainfuser.errors import ConfigError
from stainfuser.files import atomic_path
from stainfuser.io.pyramid_writer import PyramidWriter
from stainfuser.io.slide_layout import SlideSpec
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import checked_grid
from stainfuser.stain.phantom_laboratories import find_laboratory
from stainfuser.stain.phantom_layout import slide_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import build_section
from stainfuser.stamps import make_stamp

OBJECTIVE_UM = 10.0  # objective power times um per px, as scanners have it
# JPEG quality of the two files; the scanner's own compression is in the pixels already.
SOURCE_QUALITY, TRUTH_QUALITY = 90, 95


def make_demo_slide(
    *,
    slide: str,
    slide_path: str | Path,
    truth_path: str | Path,
    nuclei_path: str | Path,
    seed: int,
    slides: Mapping[str, str],
    target_laboratory: str,
    slide_px: int,
    mpp: float,
    target_px: int,
) -> None:
    """Grow tissue, stain it twice, and write both slides and the nucleus labels.

    The truth is the same section on the same glass, as the target laboratory would have stained
    and scanned it: geometry, thickness, folds, pen mark and dust agree px by px; dyes, optics,
    scanner response and white point are the target's; sensor noise is drawn anew; there is none
    of the source's blur and JPEG. Compare on tissue: on glass the truth shows the target
    scanner's white, which a normaliser that leaves the background alone does not produce.

    Parameters
    ----------
    slide
        Name of the slide, a key of `slides`.
    slide_path, truth_path
        Aperio-style BigTIFF pyramids of the slide and of its truth.
    nuclei_path
        PNG, uint16: 0, or the number of the nucleus a px belongs to.
    seed
        Seed of the cohort; with `slide` it decides the tissue.
    slides
        Slide name → laboratory.
    target_laboratory
        Laboratory of the truth.
    slide_px
        Side of the slide, px.
    mpp
        Resolution of level 0, um per px.
    target_px
        Not used here: the target image's side belongs to the same section.

    Raises
    ------
    ConfigError
        An unknown slide or laboratory, or a size or resolution that holds no tissue.
    """
    if slide not in slides:
        raise ConfigError(f"demo.slides.{slide}", "there is no such slide", "add it")
    source = find_laboratory(f"demo.slides.{slide}", slides[slide])
    target = find_laboratory("demo.target_laboratory", target_laboratory)
    grid = checked_grid("demo.slide_px", slide_px, mpp)
    rng = generator(seed, "tissue", slide)
    section = build_section(rng, grid, slide_composition(rng, grid), artefacts=True)
    LOGGER.info("%s: grown, %d nuclei", slide, len(np.unique(section.labels)) - 1)
    options = {"seed": seed, "slide_px": slide_px, "mpp": mpp}
    stamp = make_stamp("make_demo_slide", {**options, "laboratory": slides[slide]})
    image = render(section, source, generator(seed, "source noise", slide))
    _write_slide(slide_path, image, mpp, SOURCE_QUALITY, stamp)
    stamp = make_stamp("make_demo_slide", {**options, "laboratory": target_laboratory})
    image = render(section, target, generator(seed, "truth noise", slide))
    _write_slide(truth_path, image, mpp, TRUTH_QUALITY, stamp)
    _write_labels(nuclei_path, section.labels, stamp)


def _write_slide(
    path: str | Path, rgb: NDArray[np.uint8], mpp: float, quality: int, stamp: dict[str, str]
) -> None:
    height_px, width_px = rgb.shape[:2]
    power = round(OBJECTIVE_UM / mpp)
    spec = SlideSpec(width_px, height_px, mpp, power, quality=quality, stamp=stamp)
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".demo-", dir=folder) as work,
        PyramidWriter(path, Path(work) / "work", spec, key="demo") as writer,
    ):
        for block in writer.remaining():
            rows = slice(block.y_px, block.y_px + block.height_px)
            columns = slice(block.x_px, block.x_px + block.width_px)
            writer.write(block, np.ascontiguousarray(rgb[rows, columns]))
        writer.finish()


def _write_labels(path: str | Path, labels: NDArray[np.uint16], stamp: Mapping[str, str]) -> None:
    """Write a label image (H, W) uint16 as a 16-bit PNG, atomically."""
    chunks = PngImagePlugin.PngInfo()
    for key, value in stamp.items():
        chunks.add_itxt(key, value)
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG", pnginfo=chunks, compress_level=3)
    with atomic_path(path) as partial:
        partial.write_bytes(buffer.getvalue())
