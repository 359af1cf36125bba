"""Images of one size in one HDF5 file, each with its name and where it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path

_REBUILD = "delete it and run the workflow again"


@dataclass(frozen=True)
class ImagePlace:
    """Where an image was cut: a slide (or ``target:<name>``) and its top left corner, px."""

    slide: str
    x_px: int
    y_px: int


def write_image_store(
    path: str | Path,
    images: Iterable[NDArray[np.uint8]],
    ids: Sequence[str],
    places: Sequence[ImagePlace],
    attributes: Mapping[str, Any],
    datasets: Mapping[str, NDArray] | None = None,
) -> None:
    """Write images as they come: `images` uint8 (N, S, S, 3), `id`, `slide`, `x_px`, `y_px`.

    `datasets` are further arrays by name. The attribute `content_sha256`, of ids and pixels,
    lets later stages know the content without reading it again.
    """
    digest = hashlib.sha256()
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for row, image in enumerate(images):
            if row == 0:
                shape = (len(ids), *image.shape)
                # One image per chunk and no filter: pixels hardly compress, and a read is one seek.
                store = file.create_dataset("images", shape, np.uint8, chunks=(1, *image.shape))
            store[row] = image
            digest.update(ids[row].encode() + image.tobytes())
        file["id"] = np.array(ids, h5py.string_dtype())
        file["slide"] = np.array([place.slide for place in places], h5py.string_dtype())
        file["x_px"] = np.array([place.x_px for place in places], np.int64)
        file["y_px"] = np.array([place.y_px for place in places], np.int64)
        for name, values in (datasets or {}).items():
            file[name] = values
        file.attrs.update({"content_sha256": digest.hexdigest(), **attributes})


class ImageStore:
    """Read a file of `write_image_store`; a context manager.

    Attributes
    ----------
    ids, places
        Names and origins of the N images.
    attrs
        Attributes of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self._file = h5py.File(path, "r")
            self._images = self._file["images"]
            self.ids = list(self._file["id"].asstr()[:])
            self.attrs = dict(self._file.attrs)
        except FileNotFoundError:
            raise InputError(path, "there is no such file", _REBUILD) from None
        except (OSError, KeyError) as error:
            raise InputError(path, f"not an intact image store ({error})", _REBUILD) from None

    def __enter__(self) -> ImageStore:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.ids)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return image `index`, (S, S, 3) uint8 RGB."""
        return self._images[index]

    @property
    def places(self) -> list[ImagePlace]:
        """Where the images come from."""
        columns = self._file["slide"].asstr()[:], self._file["x_px"][:], self._file["y_px"][:]
        return [ImagePlace(s, int(x), int(y)) for s, x, y in zip(*columns, strict=True)]

    @property
    def content_sha256(self) -> str:
        """SHA-256 over ids and pixels."""
        return str(self.attrs["content_sha256"])

    def dataset(self, name: str) -> NDArray | None:
        """Return a further array of the file, or None."""
        return self._file[name][:] if name in self._file else None
