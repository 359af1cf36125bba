"""Images of any size as a network takes them: cut into pieces, averaged until they fit, batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

# Smaller images are continued by their last row and column.
MIN_SIDE_PX = 16
# Pixels that are encoded at a time at inference: more of them fall out of the caches.
CHUNK_PX = 1 << 17

Looked = TypeVar("Looked")


def cut_chunks(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], limit_px: int
) -> list[Tensor]:
    """Return batches (N, 3, H, W) float32 RGB in [0, 255], no side longer than `limit_px`.

    `images` is (N, H, W, 3) uint8 RGB or a sequence of (H, W, 3), of any size: large ones are cut
    into pieces of at most twice `limit_px`, and these averaged by a whole factor until they fit.
    Raises `ValueError` for anything else.
    """
    pieces = [piece for image in _checked(images) for piece in _pieces(image, 2 * limit_px)]
    return _chunks([_averaged_tile(piece, limit_px) for piece in pieces])


def each_chunk(
    chunks: list[Tensor], look_at: Callable[[int, Tensor], Looked], workers: int
) -> Iterator[Looked]:
    """Yield what `look_at` finds in each chunk (with its number), in order, no gradients kept."""

    @torch.no_grad()  # it holds for one thread only
    def look(number: int) -> Looked:
        return look_at(number, chunks[number])

    if workers < 2:
        yield from map(look, range(len(chunks)))
        return
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(chunks), 2 * workers):  # few results wait at a time
            yield from pool.map(look, range(start, min(start + 2 * workers, len(chunks))))


def _checked(images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    tiles = list(images)
    for tile in tiles:
        shape, dtype = getattr(tile, "shape", None), getattr(tile, "dtype", None)
        if shape is None or len(shape) != 3 or shape[2] != 3 or dtype != np.uint8 or 0 in shape:
            raise ValueError(f"expected (N, H, W, 3) uint8 RGB tiles, got one of {shape} {dtype}")
    if not tiles:
        raise ValueError("expected at least one tile")
    return tiles


def _pieces(image: NDArray[np.uint8], limit_px: int) -> list[NDArray[np.uint8]]:
    """Cut an image into nearly square pieces of one size, at most `limit_px` long."""
    limit_px = max(min(limit_px, int(1.5 * min(image.shape[:2]))), 1)
    counts = [-(-side // limit_px) for side in image.shape[:2]]
    height, width = (side // count for side, count in zip(image.shape[:2], counts, strict=True))
    return [
        image[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(counts[0])
        for column in range(counts[1])
    ]


def _averaged_tile(piece: NDArray[np.uint8], limit_px: int) -> Tensor:
    """Return (1, 3, H, W), no side longer than `limit_px`."""
    tile = torch.from_numpy(np.ascontiguousarray(piece)).permute(2, 0, 1)[None].float()
    missing = [max(MIN_SIDE_PX - side, 0) for side in tile.shape[2:]]
    tile = F.pad(tile, (0, missing[1], 0, missing[0]), mode="replicate")
    factor = -(-max(tile.shape[2:]) // limit_px)
    if factor == 1:
        return tile
    return F.avg_pool2d(tile, factor, ceil_mode=True, count_include_pad=False)


def _chunks(tiles: list[Tensor]) -> list[Tensor]:
    """Join neighbouring tiles of one size, up to `CHUNK_PX` pixels at a time."""
    chunks: list[list[Tensor]] = []
    for tile in tiles:
        room = CHUNK_PX // max(tile.shape[2] * tile.shape[3], 1)
        if chunks and chunks[-1][0].shape == tile.shape and len(chunks[-1]) < room:
            chunks[-1].append(tile)
        else:
            chunks.append([tile])
    return [torch.cat(chunk) for chunk in chunks]
