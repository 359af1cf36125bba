"""The chain of image directories at the bones of a TIFF, classic or big, read without a library.

Used while the workflow is parsed, so it imports the standard library only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

TILE_WIDTH_TAG = 322

_MAX_ENTRIES = 4096  # real directories have some 20 entries
_MAX_DIRECTORIES = 10_000


@dataclass(frozen=True)
class _Layout:
    """Sizes and codes of the numbers of one kind of TIFF."""

    order: str
    offset: str
    count: str
    entry_bytes: int

    def read(self, handle: BinaryIO, code: str) -> int:
        """Read one number; `EOFError` beyond the end of the file."""
        size = struct.calcsize(code)
        data = handle.read(size)
        if len(data) < size:
            raise EOFError("the file ends inside an image directory")
        return struct.unpack(self.order + code, data)[0]


def walk_directories(handle: BinaryIO) -> Iterator[set[int]]:
    """Yield the tag numbers of each image directory, in the order of the chain.

    Raises
    ------
    ValueError
        The file is no TIFF, or a directory is nonsense.
    EOFError
        A directory lies beyond the end of the file.
    """
    layout, start = _read_header(handle)
    seen: set[int] = set()
    while start and start not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(start)
        handle.seek(start)
        entries = layout.read(handle, layout.count)
        if not 0 < entries <= _MAX_ENTRIES:
            raise ValueError("not an image directory")
        directory = handle.read(entries * layout.entry_bytes)
        if len(directory) < entries * layout.entry_bytes:
            raise EOFError("the file ends inside an image directory")
        code = layout.order + "H"
        places = range(0, len(directory), layout.entry_bytes)
        yield {struct.unpack_from(code, directory, place)[0] for place in places}
        start = layout.read(handle, layout.offset)


def _read_header(handle: BinaryIO) -> tuple[_Layout, int]:
    head = handle.read(4)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 4:
        raise ValueError("not a TIFF")
    magic = struct.unpack(order + "H", head[2:])[0]
    if magic == 42:
        layout = _Layout(order, "I", "H", 12)
    elif magic == 43:
        layout = _Layout(order, "Q", "Q", 20)
        handle.read(4)  # size of offsets and a zero
    else:
        raise ValueError("not a TIFF")
    return layout, layout.read(handle, layout.offset)
