"""A colour look-up table with an entry for every colour: one memory access per pixel.

Interpolating a table of 33^3 nodes costs some 50 operations per pixel (Pillow: 35 ms of a core per
MPix). Doing it once for all 2^24 colours costs 0.2 s and 64 MiB; then a pixel is a single look-up
(2 ms per MPix), because the colours of a slide are few and their entries stay in the cache.

Pixels are four bytes, red first, read as one number; the fourth byte is filler.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
from numpy.typing import NDArray

if sys.byteorder != "little":
    raise ImportError("colour tables are written for little-endian processors")

_COLOUR = np.uint32(0xFFFFFF)


class ColourTable:
    """A map of colours by table.

    Parameters
    ----------
    nodes
        (N, N, N, 3) float32 results in [0, 1] at evenly spaced colours, indexed blue, green, red
        (the order of Pillow's `Color3DLUT`); linear along each axis between them.
    """

    def __init__(self, nodes: NDArray[np.float32]) -> None:
        low, fraction = _between(nodes.shape[0])
        table = np.empty((256, 256, 256, 4), np.uint8)
        above, plane = np.empty((2, 256, 256, 4), np.float32)
        # With the filler as a fourth channel numbers become bytes in one go.
        filled = np.concatenate([nodes, np.ones_like(nodes[..., :1])], axis=-1)
        by_red = _along_red(filled, low, fraction) * np.float32(255.0)
        for blue in range(256):
            part = by_red[low[blue]]
            part = part + fraction[blue] * (by_red[low[blue] + 1] - part)
            # Along green, into memory that is used again.
            part.take(low, 0, out=plane, mode="clip")
            part.take(low + 1, 0, out=above, mode="clip")
            above -= plane
            above *= fraction[:, None, None]
            plane += above
            plane += np.float32(0.5)  # the cut to whole numbers then rounds
            table[blue] = plane
        self._table = table.view(np.uint32).ravel()
        self._local = threading.local()

    def apply(self, rgbx: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 4) uint8 pixels mapped; valid until this thread's next call."""
        pixels = rgbx.view(np.uint32)[..., 0]
        index, mapped = self._buffers(pixels.shape)
        np.bitwise_and(pixels, _COLOUR, out=index)
        np.take(self._table, index, out=mapped, mode="clip")
        return mapped.view(np.uint8).reshape(*pixels.shape, 4)

    def _buffers(self, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], NDArray[np.uint32]]:
        """Return this thread's memory for a shape: fresh memory costs more than the map."""
        buffers = getattr(self._local, "buffers", None)
        if buffers is None or buffers[0].shape != shape:
            buffers = np.empty(shape, np.intp), np.empty(shape, np.uint32)
            self._local.buffers = buffers
        return buffers


def _between(count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return for 0…255 the node below and how far it is to the next."""
    position = np.arange(256, dtype=np.float64) * (count - 1) / 255.0
    low = np.minimum(position.astype(np.intp), count - 2)
    return low, (position - low).astype(np.float32)


def _along_red(
    nodes: NDArray[np.float32], low: NDArray[np.intp], fraction: NDArray[np.float32]
) -> NDArray[np.float32]:
    below, above = nodes.take(low, 2), nodes.take(low + 1, 2)
    return below + fraction[:, None] * (above - below)
