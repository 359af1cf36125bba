"""Bytes of a BigTIFF file: header, directories (IFDs) and JPEG tiles, nothing about slides.

Layout after Adobe TIFF 6.0, the BigTIFF extension (offsets of 8 bytes, version 43) and TIFF
Technical Note 2 (every JPEG tile is a complete stream of its own).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import imagecodecs
import numpy as np
from numpy.typing import NDArray

HEADER_BYTES = 16
_RGBX = 7  # JCS_EXT_RGBX of libjpeg-turbo
_HEADER = "<2sHHHQ"
_ENTRY = "<HHQ8s"

# Field types: code and struct format of one value; a rational is two unsigned longs.
_TYPES = {"bytes": (7, "B"), "text": (2, "B"), "short": (3, "H"), "long": (4, "I")}
_TYPES |= {"rational": (5, "I"), "offset": (16, "Q")}


@dataclass(frozen=True)
class Tag:
    """One field of a directory: `values` are integers, flattened; a rational takes two."""

    code: int
    kind: str
    values: Sequence[int]

    @property
    def count(self) -> int:
        """Number of values as TIFF counts them."""
        return len(self.values) // 2 if self.kind == "rational" else len(self.values)

    def payload(self) -> bytes:
        """Return the values as little-endian bytes."""
        return struct.pack(f"<{len(self.values)}{_TYPES[self.kind][1]}", *self.values)


def text_tag(code: int, text: str) -> Tag:
    """Return an ASCII field, terminated by a zero byte; other characters become ``?``."""
    return Tag(code, "text", [*text.encode("ascii", "replace"), 0])


def rational_tag(code: int, value: float) -> Tag:
    """Return a field holding one positive real number, exact to about 1e-8 of its size."""
    fraction = Fraction(value).limit_denominator(10_000)
    return Tag(code, "rational", [fraction.numerator, fraction.denominator])


def encode_header(first_ifd_offset: int) -> bytes:
    """Return the 16 bytes a BigTIFF file begins with; offset 0 marks an unfinished file."""
    return struct.pack(_HEADER, b"II", 43, 8, 0, first_ifd_offset)


def encode_directories(directories: Sequence[Sequence[Tag]], start: int) -> bytes:
    """Return the chained directories as one run of bytes to be placed at offset `start`."""
    chunks = []
    for number, tags in enumerate(directories):
        chunk = _encode_directory(tags, start, last=number == len(directories) - 1)
        chunks.append(chunk)
        start += len(chunk)
    return b"".join(chunks)


def _encode_directory(tags: Sequence[Tag], start: int, last: bool) -> bytes:
    tags = sorted(tags, key=lambda tag: tag.code)
    values_at = start + 8 + 20 * len(tags) + 8
    entries, values = [], b""
    for tag in tags:
        payload = tag.payload()
        if len(payload) > 8:
            inline = struct.pack("<Q", values_at + len(values))
            values += payload + b"\0" * (-len(payload) % 8)
        else:
            inline = payload.ljust(8, b"\0")
        entries.append(struct.pack(_ENTRY, tag.code, _TYPES[tag.kind][0], tag.count, inline))
    following = 0 if last else values_at + len(values)
    head = struct.pack("<Q", len(tags)) + b"".join(entries) + struct.pack("<Q", following)
    return head + values


def encode_jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    """Return pixels as a YCbCr JPEG stream without chroma subsampling (4:4:4).

    Pixels are (H, W, 3) uint8 RGB, or (H, W, 4) with a filler that is ignored: the same stream.
    """
    return imagecodecs.jpeg8_encode(
        np.ascontiguousarray(pixels),
        level=quality,
        colorspace="RGB" if pixels.shape[2] == 3 else _RGBX,
        outcolorspace="YCBCR",
        subsampling="444",
    )
