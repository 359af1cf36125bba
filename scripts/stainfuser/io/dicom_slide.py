"""DICOM: one file per level in a folder, each tile a frame; tiles are copied as they are.

pydicom writes the attributes; the frames follow one after the other, so that memory does not grow
with the slide.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import JPEGBaseline8Bit

from stainfuser.files import sync_files
from stainfuser.io.dicom_attributes import describe_level
from stainfuser.io.encoded_slide import EncodedLevel, EncodedSlide
from stainfuser.io.outputs import check_writable, explain_full_disk, move_into_place

# Elements of PS3.5 A.4: a fragment, the end of the fragments, and pixels of unknown length.
_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
_PIXEL_DATA = b"\xe0\x7f\x10\x00OB\x00\x00\xff\xff\xff\xff"
# Where frames begin, as 32 bits, in the element itself; larger levels have a table of 64 bits.
_LARGEST_BASIC_TABLE = 2**32 - 1


def write_dicom_slide(folder: str | Path, slide: EncodedSlide) -> None:
    """Write a slide as DICOM files `level-0.dcm`…; the folder appears when it is whole.

    Raises
    ------
    InputError
        The folder cannot be written to, or the disk is full.
    """
    folder = Path(folder)
    check_writable(folder.parent)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with explain_full_disk(folder.parent):
        partial.mkdir()
        for number, level in enumerate(slide.levels):
            _write_level(partial / f"level-{number}.dcm", slide, number, level)
        sync_files(partial)
        move_into_place(partial, folder)


def _write_level(path: Path, slide: EncodedSlide, number: int, level: EncodedLevel) -> None:
    facts = describe_level(slide, number)
    facts.file_meta = FileMetaDataset()
    facts.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    padded = [count + count % 2 for count in level.counts]
    starts = np.concatenate([[0], np.cumsum(np.array(padded[:-1], np.int64) + 8)])
    is_small = starts[-1] + padded[-1] <= _LARGEST_BASIC_TABLE
    if not is_small:
        facts.ExtendedOffsetTable = starts.astype("<u8").tobytes()
        facts.ExtendedOffsetTableLengths = np.array(padded, "<u8").tobytes()
    with open(path, "wb") as handle:
        dcmwrite(handle, facts, enforce_file_format=True)
        handle.write(_PIXEL_DATA)
        _write_item(handle, starts.astype("<u4").tobytes() if is_small else b"")
        for frame in _even(level.tiles()):
            _write_item(handle, frame)
        handle.write(_END)


def _write_item(handle: BinaryIO, content: bytes) -> None:
    handle.write(_ITEM + struct.pack("<I", len(content)))
    handle.write(content)


def _even(streams: Iterator[bytes]) -> Iterator[bytes]:
    """Yield streams of an even number of bytes, as the standard wants."""
    for stream in streams:
        yield stream + b"\0" * (len(stream) % 2)
