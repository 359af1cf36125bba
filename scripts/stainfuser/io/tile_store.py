"""Tiles of one slide in one HDF5 file, streamed in and out."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.files import atomic_path

ENCODINGS = ("raw", "jpeg")
FLUSH_ROWS = 16


class TileWriter:
    """Append tiles to a store; made by `open_tile_writer`."""

    def __init__(self, file: h5py.File, tile_px: int, encoding: str, jpeg_quality: int) -> None:
        self._file = file
        self.tile_px = tile_px
        self._jpeg_quality = jpeg_quality if encoding == "jpeg" else None
        if encoding == "jpeg":
            kind = h5py.vlen_dtype(np.uint8)
            self._images = file.create_dataset("images", (0,), kind, maxshape=(None,))
        else:
            # One image per chunk and no filter: pixels hardly compress, and a tile is one read.
            shape = (tile_px, tile_px, 3)
            self._images = file.create_dataset(
                "images", (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape)
            )
        self._coords = file.create_dataset(
            "coords", (0, 2), np.int64, maxshape=(None, 2), chunks=(1024, 2)
        )
        self._image_index = file.create_dataset(
            "image_index", (0,), np.int64, maxshape=(None,), chunks=(1024,)
        )

    def __len__(self) -> int:
        """Return the number of tiles written so far."""
        return len(self._coords)

    def append(self, tile: NDArray[np.uint8], x_px: int, y_px: int, image_index: int = 0) -> None:
        """Add one (S, S, 3) uint8 RGB tile whose top left corner is at level-0 (x_px, y_px).

        `image_index` says which image of an image set it is from (its place in `image_names`).
        """
        row = len(self)
        for dataset in (self._images, self._coords, self._image_index):
            dataset.resize(row + 1, axis=0)
        self._images[row] = tile if self._jpeg_quality is None else self._encode(tile)
        self._coords[row] = (x_px, y_px)
        self._image_index[row] = image_index
        if (row + 1) % FLUSH_ROWS == 0:
            self._file.flush()

    def _encode(self, tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
        buffer = io.BytesIO()
        Image.fromarray(tile).save(buffer, "JPEG", quality=self._jpeg_quality, subsampling=0)
        return np.frombuffer(buffer.getvalue(), np.uint8)


@contextmanager
def open_tile_writer(
    path: str | Path,
    *,
    tile_px: int,
    attributes: Mapping[str, Any],
    encoding: str = "raw",
    jpeg_quality: int = 95,
    image_names: Sequence[str] = (),
) -> Iterator[TileWriter]:
    """Yield a `TileWriter`; the file takes its final name when the block ends without an error.

    `attributes` become those of the file: `slide`, `mpp`, `level0_tile_px`, `source_sha256` and
    the stamp. With `encoding` "raw" `images` is uint8 (N, S, S, 3), with "jpeg" it holds the
    bytes of one 4:4:4 JPEG per row. `image_names` are the files of an image set.
    """
    if encoding not in ENCODINGS:
        raise InputError("tiles.encoding", f"it is {encoding!r}", f"use one of {ENCODINGS}")
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update({"tile_px": tile_px, "encoding": encoding, **attributes})
        if image_names:
            file.create_dataset("image_names", data=list(image_names), dtype=h5py.string_dtype())
        yield TileWriter(file, tile_px, encoding, jpeg_quality)


class TileReader:
    """Read a tile store; JPEG tiles are decoded on the way.

    Opened at the first access and once per process, so that it can be handed to data loaders.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._pid = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_file": None, "_pid": 0}

    def close(self) -> None:
        """Close the file; a later access opens it again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    @property
    def file(self) -> h5py.File:
        """The open HDF5 file of this process."""
        if self._file is None or self._pid != os.getpid():
            try:
                self._file, self._pid = h5py.File(self.path, "r"), os.getpid()
            except OSError as error:
                remedy = "delete it and run again"
                raise InputError(
                    self.path, f"not a readable tile store ({error})", remedy
                ) from None
        return self._file

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.file["coords"])

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the file as plain Python values."""
        return {key: getattr(value, "item", lambda v=value: v)() for key, value in self._items()}

    @property
    def coords(self) -> NDArray[np.int64]:
        """Top left corners, (N, 2) int64 level-0 px, x then y."""
        return self.file["coords"][:]

    @property
    def image_index(self) -> NDArray[np.int64]:
        """Which image of an image set each tile is from, (N,); 0 for slides."""
        return self.file["image_index"][:]

    @property
    def image_names(self) -> list[str]:
        """File names of the image set that `image_index` refers to; empty for slides."""
        return list(self.file["image_names"].asstr()) if "image_names" in self.file else []

    @property
    def images(self) -> TileImages:
        """The tiles as a sequence: ``reader.images[i]``, ``[a:b]``, ``[[3, 1, 2]]``."""
        return TileImages(self)

    def read(self, indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Return tiles in the order asked for, (len(indices), S, S, 3) uint8 RGB."""
        tile_px = int(self.file.attrs["tile_px"])
        out = np.empty((len(indices), tile_px, tile_px, 3), np.uint8)
        for row, index in enumerate(indices):
            out[row] = self._decode(self.file["images"][int(index)])
        return out

    def _items(self) -> list[tuple[str, Any]]:
        return list(self.file.attrs.items())

    @staticmethod
    def _decode(stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if stored.ndim == 3:
            return stored
        with Image.open(io.BytesIO(stored.tobytes())) as image:
            return np.asarray(image.convert("RGB"))


class TileImages:
    """Sequence view of the tiles of a `TileReader`."""

    def __init__(self, reader: TileReader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        tile_px = int(self._reader.file.attrs["tile_px"])
        return len(self), tile_px, tile_px, 3

    def __getitem__(self, key: int | slice | Sequence[int]) -> NDArray[np.uint8]:
        if isinstance(key, slice):
            return self._reader.read(range(*key.indices(len(self))))
        if isinstance(key, int | np.integer):
            return self._reader.read([int(key)])[0]
        return self._reader.read(key)
