"""Model outputs on disk while a slide is rendered: neighbouring blocks share tiles.

On disk they cost no memory however wide the slide, and a run that was killed finds them again.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class TileCache:
    """Square RGB tiles by row and column.

    Parameters
    ----------
    folder
        Where the tiles lie, one file each; it is created.
    tile_px
        Side of the tiles, px.
    """

    def __init__(self, folder: Path, tile_px: int) -> None:
        self.folder, self._shape = folder, (tile_px, tile_px, 3)
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, row: int, column: int) -> NDArray[np.uint8] | None:
        """Return a tile, (S, S, 3) uint8, or None if it is absent or damaged."""
        try:
            content = self._path(row, column).read_bytes()
        except FileNotFoundError:
            return None
        pixels, checksum = content[:-4], content[-4:]
        if len(pixels) != np.prod(self._shape) or _checksum(pixels) != checksum:
            return None
        return np.frombuffer(pixels, np.uint8).reshape(self._shape)

    def put(self, row: int, column: int, tile: NDArray[np.uint8]) -> None:
        """Store a tile, (S, S, 3) uint8."""
        path = self._path(row, column)
        partial = path.with_suffix(".tmp")
        pixels = np.ascontiguousarray(tile).tobytes()
        partial.write_bytes(pixels + _checksum(pixels))
        os.replace(partial, path)

    def drop_rows_before(self, row: int) -> None:
        """Delete the tiles of all rows above `row`."""
        for path in self.folder.glob("*.tile"):
            if int(path.stem.partition("_")[0]) < row:
                path.unlink()

    def _path(self, row: int, column: int) -> Path:
        return self.folder / f"{row}_{column}.tile"


def _checksum(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")
