"""OME-TIFF: the pyramid as sub-images of one image, its facts as XML; tiles are copied.

QuPath, Bio-Formats, tifffile and libvips read all of its levels; OpenSlide reads only the largest.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import tifffile

from stainfuser.files import atomic_path
from stainfuser.io.encoded_slide import EncodedLevel, EncodedSlide
from stainfuser.io.outputs import check_writable, explain_full_disk
from stainfuser.io.slide_layout import SOFTWARE

# Names the identifiers of files: the same slide always gets the same.
_NAMESPACE = uuid.UUID("5d0e1f0a-3a6c-5b52-9d5c-6f2b1f6f8a11")


def write_ome_tiff(path: str | Path, slide: EncodedSlide) -> None:
    """Write a slide as OME-TIFF; the file appears when it is whole.

    Raises
    ------
    InputError
        The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    check_writable(path.parent)
    stamp = ", ".join(f"{name} {value}" for name, value in sorted(slide.stamp.items()))
    facts = {
        "axes": "YXS",
        "UUID": str(uuid.uuid5(_NAMESPACE, stamp)),
        "Creator": SOFTWARE,
        "Name": "normalised slide",
        "Description": f"{SOFTWARE}: {stamp}",
        "PhysicalSizeX": slide.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": slide.mpp,
        "PhysicalSizeYUnit": "µm",
    }
    with (
        explain_full_disk(path.parent),
        atomic_path(path) as partial,
        tifffile.TiffWriter(partial, bigtiff=True, ome=True) as tiff,
    ):
        full, *reduced = slide.levels
        _write_level(tiff, full, slide, subifds=len(reduced), metadata=facts)
        for level in reduced:
            _write_level(tiff, level, slide, subfiletype=1, metadata=None)


def _write_level(
    tiff: tifffile.TiffWriter, level: EncodedLevel, slide: EncodedSlide, **kind: object
) -> None:
    px_per_cm = 1e4 / (slide.mpp * level.downsample)
    tiff.write(
        level.tiles(),  # streams are written as they come
        shape=(level.height_px, level.width_px, 3),
        dtype="uint8",
        photometric="ycbcr",
        subsampling=(1, 1),
        compression="jpeg",
        tile=(level.tile_px, level.tile_px),
        resolution=(px_per_cm, px_per_cm),
        resolutionunit="CENTIMETER",
        iccprofile=slide.icc_profile,
        software=SOFTWARE,
        **kind,
    )
