"""The data set of the downstream task: tiles to train on, tiles to test on, reference images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "test_original")
_TEXTS = ("test_shift", "test_tile", "test_group")
# Large enough for one tile; label images are mostly zero.
_COMPRESSION = {"compression": "gzip", "compression_opts": 1}


@dataclass(frozen=True)
class DownstreamData:
    """Everything that training and scoring look at.

    Attributes
    ----------
    dataset, classes, mpp
        Its name in tables, the names of classes 1 to C, and its resolution, um per px.
    train_images, train_labels
        (N, S, S, 3) uint8 RGB and (N, S, S, 2) int32 instance and class.
    test_images, test_labels
        The same of M tiles of shifted stains.
    test_original
        (M, S, S, 3) uint8 RGB: the test tiles in the stain that was trained on, or None where that
        is not known.
    test_shift, test_tile, test_group
        (M,) names: of the shift, of the tile (the same tissue has the same name under every
        shift), and of the slide or section it was cut from.
    references
        Name → (h, w, 3) uint8 RGB image of the stain that was trained on.
    """

    dataset: str
    classes: tuple[str, ...]
    mpp: float
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int32]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int32]
    test_original: NDArray[np.uint8] | None
    test_shift: tuple[str, ...]
    test_tile: tuple[str, ...]
    test_group: tuple[str, ...]
    references: Mapping[str, NDArray[np.uint8]]


def write_downstream(path: str | Path, data: DownstreamData, stamp: Mapping[str, str]) -> None:
    """Write the data set as HDF5."""
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for name in _ARRAYS:
            values = getattr(data, name)
            if values is not None:
                chunks = (1, *values.shape[1:])
                file.create_dataset(name, data=values, chunks=chunks, **_COMPRESSION)
        for name in _TEXTS:
            file.create_dataset(name, data=list(getattr(data, name)), dtype=h5py.string_dtype())
        group = file.create_group("references", track_order=True)
        for name, image in data.references.items():
            group.create_dataset(name, data=image, **_COMPRESSION)
        file.attrs.update(stamp)
        file.attrs.update({"dataset": data.dataset, "mpp": data.mpp})
        file.attrs["classes"] = list(data.classes)


def read_downstream(path: str | Path) -> DownstreamData:
    """Read what `write_downstream` wrote; `InputError` for anything else."""
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: file[name][:] if name in file else None for name in _ARRAYS}
            texts = {name: tuple(file[name].asstr()[:].tolist()) for name in _TEXTS}
            references = {name: image[:] for name, image in file["references"].items()}
            classes = tuple(str(name) for name in file.attrs["classes"])
            dataset, mpp = str(file.attrs["dataset"]), float(file.attrs["mpp"])
    except (OSError, KeyError) as error:
        wrong = f"it is no data set of the downstream task ({error})"
        raise InputError(path, wrong, "delete it and run the workflow again") from None
    return DownstreamData(dataset, classes, mpp, **arrays, **texts, references=references)
