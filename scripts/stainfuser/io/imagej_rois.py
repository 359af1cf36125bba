"""Nuclei outlined in ImageJ: an archive per image, with the image and its ``RoiSet.zip``.

Nothing is unpacked to disk. Outlines are read by roifile.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import roifile
from PIL import Image, UnidentifiedImageError

from stainfuser.errors import InputError
from stainfuser.io.images import check_file, composite_on_white
from stainfuser.io.nucleus_set import NucleusImage, NucleusSet, Polygon, labels_of_polygons

MPP = 0.25
IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
# An archive that unpacks to more is none of tiles and outlines.
MAX_BYTES = 500_000_000
REMEDY = "give an archive of one image and its RoiSet.zip"


def read_imagej(folder: str | Path) -> NucleusSet:
    """Open a folder of archives; every image is its own group."""
    paths = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() == ".zip")

    def read(index: int) -> NucleusImage:
        return read_archive(paths[index])

    members = tuple((path.stem, path.stem) for path in paths)
    return NucleusSet("imagej", ("nucleus",), MPP, members, read)


def read_archive(path: str | Path) -> NucleusImage:
    """Read one archive.

    Raises
    ------
    InputError
        It is missing, damaged or too large, or does not hold one image and one set of outlines.
    """
    path = Path(path)
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            image = _read_member(path, archive, IMAGE_SUFFIXES, "image")
            outlines = _read_rois(path, _read_member(path, archive, (".zip",), "RoiSet.zip"))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(path, f"not an intact archive ({error})", "copy it again") from None
    try:
        with Image.open(io.BytesIO(image)) as opened:
            rgb = np.asarray(composite_on_white(opened)).copy()
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(path, f"its image cannot be read ({error})", REMEDY) from None
    labels = labels_of_polygons(outlines, *rgb.shape[:2])
    return NucleusImage(path.stem, path.stem, rgb, labels)


def _read_member(
    path: Path, archive: zipfile.ZipFile, suffixes: tuple[str, ...], kind: str
) -> bytes:
    found = [info for info in archive.infolist() if info.filename.lower().endswith(suffixes)]
    if len(found) != 1:
        raise InputError(path, f"it holds {len(found)} files of the kind {kind}", REMEDY)
    if found[0].file_size > MAX_BYTES:
        raise InputError(path, f"its {kind} unpacks to {found[0].file_size} bytes", REMEDY)
    return archive.read(found[0])


def _read_rois(path: Path, content: bytes) -> list[Polygon]:
    """Return outlines, (N, 2) of x and y, in the order of the archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [info for info in archive.infolist() if info.filename.lower().endswith(".roi")]
        if sum(info.file_size for info in members) > MAX_BYTES:
            raise InputError(path, "its outlines unpack to too many bytes", REMEDY)
        try:
            rois = [roifile.ImagejRoi.frombytes(archive.read(info)) for info in members]
            return [np.atleast_2d(roi.coordinates()) for roi in rois]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            wrong = f"an outline cannot be read ({type(error).__name__}: {error})"
            raise InputError(path, wrong, "save the outlines again") from None
