"""Cut regions into tiles and encode them, on several threads and into memory used again."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stainfuser.io.bigtiff import encode_jpeg

Pixels = NDArray[np.uint8]


class TileEncoder:
    """Encodes tiles as JPEG streams.

    Parameters
    ----------
    quality
        JPEG quality, 1 to 100.
    threads
        They do not change a byte.
    """

    def __init__(self, quality: int, threads: int) -> None:
        self._quality = quality
        self._pool, self._local = ThreadPoolExecutor(max(1, threads)), threading.local()

    def encode(
        self, tiles: list[Pixels], known: Container[str]
    ) -> Iterator[tuple[str | None, bytes]]:
        """Yield the colour of each tile that has but one, else None, and its stream.

        The stream is empty for a tile whose colour is `known`: it is in the file already.
        """

        def encode_one(tile: Pixels) -> tuple[str | None, bytes]:
            colour = single_colour(tile)
            if colour is not None and colour in known:
                return colour, b""
            memory = getattr(self._local, "memory", None)
            if memory is None or memory.shape != tile.shape:
                memory = self._local.memory = np.empty(tile.shape, np.uint8)
            memory[:] = tile
            return colour, encode_jpeg(memory, self._quality)

        return self._pool.map(encode_one, tiles)

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown(cancel_futures=True)


def cut_tiles(pixels: NDArray[np.uint8], side: int) -> tuple[list[NDArray[np.uint8]], int]:
    """Cut a region into tiles of `side` px in rows; return them and their columns."""
    rows, columns = -(-pixels.shape[0] // side), -(-pixels.shape[1] // side)
    short = (rows * side - pixels.shape[0], columns * side - pixels.shape[1])
    if any(short):
        # Repeating the last px, unlike white, keeps JPEG from ringing into the picture.
        pixels = np.pad(pixels, ((0, short[0]), (0, short[1]), (0, 0)), mode="edge")
    places = [(y * side, x * side) for y in range(rows) for x in range(columns)]
    return [pixels[y : y + side, x : x + side] for y, x in places], columns


def single_colour(tile: NDArray[np.uint8]) -> str | None:
    """Return the colour of a blank tile, e.g. ``255,255,255``, or None."""
    first = tile[0, 0, :3]
    if (tile[0, :, :3] != first).any() or (tile[..., :3] != first).any():
        return None
    return ",".join(map(str, first.tolist()))
