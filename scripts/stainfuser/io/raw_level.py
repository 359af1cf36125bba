"""Pixels of one reduced level, kept raw on disk while a slide is written."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class RawLevel:
    """A (height, width, 3) uint8 RGB picture in a file, written in pieces and read in bands.

    A block covers no whole tile of the small levels, so these are encoded only at the end; on disk
    they cost no memory and survive a kill.
    """

    def __init__(self, path: Path, width_px: int, height_px: int) -> None:
        self.width_px, self.height_px = width_px, height_px
        self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.ftruncate(self._handle, 3 * width_px * height_px)

    def put(self, x_px: int, y_px: int, rgb: NDArray[np.uint8]) -> None:
        """Write a piece at (x_px, y_px); what reaches beyond the picture is dropped."""
        rgb = rgb[: max(0, self.height_px - y_px), : max(0, self.width_px - x_px)]
        for row, pixels in enumerate(rgb):
            os.pwrite(self._handle, pixels.tobytes(), 3 * ((y_px + row) * self.width_px + x_px))

    def rows(self, start_px: int, stop_px: int) -> NDArray[np.uint8]:
        """Return the rows from `start_px` up to `stop_px` or the end."""
        rows = min(stop_px, self.height_px) - start_px
        raw = os.pread(self._handle, 3 * rows * self.width_px, 3 * start_px * self.width_px)
        return np.frombuffer(raw, np.uint8).reshape(rows, self.width_px, 3)

    def checksum(self, x_px: int, y_px: int, width_px: int, height_px: int) -> int:
        """Return a checksum of a piece as it lies in the file, clipped to the picture."""
        width_px = max(0, min(width_px, self.width_px - x_px))
        checksum = 0
        for row in range(y_px, min(y_px + height_px, self.height_px)):
            start = 3 * (row * self.width_px + x_px)
            checksum = zlib.crc32(os.pread(self._handle, 3 * width_px, start), checksum)
        return checksum

    def sync(self) -> None:
        """Force the pixels to disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; it stays on disk."""
        os.close(self._handle)
