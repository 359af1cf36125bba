"""A normalised slide as OME-TIFF, tile by tile the same JPEG streams."""

from __future__ import annotations

from pathlib import Path

from stainfuser.io.encoded_slide import read_encoded
from stainfuser.io.ome_tiff import write_ome_tiff
from stainfuser.logs import LOGGER


def export_ome_tiff(*, slide_path: str | Path, export_path: str | Path) -> None:
    """Write the slide at `slide_path`, which `normalize_slide` made, as OME-TIFF.

    Raises
    ------
    InputError
        It is another kind of slide, the folder cannot be written to, or the disk is full.
    """
    slide = read_encoded(slide_path)
    write_ome_tiff(export_path, slide)
    LOGGER.info("%s: %d levels copied", Path(export_path).name, len(slide.levels))
