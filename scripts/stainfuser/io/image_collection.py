"""A folder of real images, divided into training, validation and test by a table of file names."""

from __future__ import annotations

import csv
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError

SPLITS = ("train", "validation", "test")
COLUMNS = ("file", "split", "stain", "licence")
# Folder of the mosaics, which show one region in many staining protocols.
MOSAIC_FOLDER = "/fan/"


@dataclass(frozen=True)
class CollectionEntry:
    """One image: `file` relative to the folder, its `split`, `stain` ("he" or other), licence."""

    file: str
    split: str
    stain: str
    licence: str


def is_mosaic(file: str) -> bool:
    """Say whether a file of the collection is a mosaic of staining protocols."""
    return MOSAIC_FOLDER in file


def read_split_table(path: str | Path) -> list[CollectionEntry]:
    """Read the table of `COLUMNS`.

    Raises
    ------
    InputError
        A column is missing, a split is unknown, or a file is listed twice.
    """
    with open(path, newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            found = f"its columns are {reader.fieldnames}, expected {list(COLUMNS)}"
            raise InputError(path, found, "mend its first line")
        entries = [CollectionEntry(**row) for row in reader]
    for entry in entries:
        if entry.split not in SPLITS:
            found = f"{entry.file} has the split {entry.split!r}, expected one of {SPLITS}"
            raise InputError(path, found, "mend the table")
    if len({entry.file for entry in entries}) != len(entries):
        raise InputError(path, "a file is listed twice", "give each file one split")
    return entries


def read_entry(folder: str | Path, entry: CollectionEntry) -> NDArray[np.uint8]:
    """Read one image whole as (H, W, 3) uint8 RGB: a plain image, a slide, or a zip with one.

    Raises `InputError` where the file is missing or cannot be read.
    """
    path = Path(folder) / entry.file
    if not path.is_file():
        remedy = "give the folder the table was written for"
        raise InputError(path, "the file listed in the table is missing", remedy)
    if path.suffix.lower() == ".svs":
        return _read_slide(path)
    if path.suffix.lower() == ".zip":
        return _read_zipped(path)
    from stainfuser.io.images import read_image

    return read_image(path)


def _read_slide(path: Path) -> NDArray[np.uint8]:
    from stainfuser.io.slides import SlideReader

    # The resolution does not matter for level 0, but a slide without one is refused.
    with SlideReader(path, mpp_override=0.5) as slide:
        width_px, height_px = slide.size_px
        return slide.read(0, 0, width_px, height_px)


def _read_zipped(path: Path) -> NDArray[np.uint8]:
    from PIL import Image

    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.lower().endswith((".tif", ".tiff", ".png"))]
        if len(names) != 1:
            raise InputError(path, f"it holds {len(names)} images, expected one", "repack it")
        with Image.open(io.BytesIO(archive.read(names[0]))) as image:
            return np.asarray(image.convert("RGB")).copy()
