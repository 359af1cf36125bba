"""A normalised slide as DICOM, tile by tile the same JPEG streams."""

from __future__ import annotations

from pathlib import Path

from stainfuser.io.dicom_slide import write_dicom_slide
from stainfuser.io.encoded_slide import read_encoded
from stainfuser.logs import LOGGER


def export_dicom(*, slide_path: str | Path, export_dir: str | Path) -> None:
    """Write the slide at `slide_path`, which `normalize_slide` made, as a folder of DICOM files.

    Raises
    ------
    InputError
        It is another kind of slide, the folder cannot be written to, or the disk is full.
    """
    slide = read_encoded(slide_path)
    write_dicom_slide(export_dir, slide)
    LOGGER.info("%s: %d levels copied", Path(export_dir).name, len(slide.levels))
