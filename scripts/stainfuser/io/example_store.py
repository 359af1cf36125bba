"""Rows of arrays made once and read at random: training examples, encoded before training.

One HDF5 file, a dataset per array, a chunk per row, no filter (pixels hardly compress). While it is
being filled a counter of finished rows is written after the rows themselves, so that a killed job
goes on where it stopped; rows made from anything else (`key`) are discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from stainfuser.files import sha256_content
from stainfuser.logs import progress

Arrays = dict[str, NDArray]


class ExampleStore:
    """Read rows; a context manager, made by `filled`."""

    def __init__(self, path: str | Path) -> None:
        self._file = h5py.File(path, "r")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return int(self._file.attrs["finished"])

    def read(self, rows: NDArray[np.integer]) -> Arrays:
        """Return name → (N, ...) of N rows, in the order asked for, repeats allowed."""
        unique, place = np.unique(np.asarray(rows), return_inverse=True)
        return {name: self._file[name][unique][place] for name in self._file}

    def read_all(self, name: str) -> NDArray:
        """Return one array of all rows, (N, ...)."""
        return self._file[name][:]

    @classmethod
    def filled(
        cls,
        path: str | Path,
        key: Any,
        rows: int,
        make_rows: Callable[[int], Arrays],
    ) -> Self:
        """Open a store of `rows` rows, making those that are missing.

        Parameters
        ----------
        path
            Of the file, in a work folder.
        key
            All that the rows depend on, JSON-able; a file of another key is made anew.
        rows
            At least so many; the last call of `make_rows` may give more than are kept.
        make_rows
            Number of the first row → name → (M, ...) arrays, M >= 1; a function of its argument
            only.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = sha256_content([key, rows])
        with _opened(path, text) as file:
            finished = int(file.attrs["finished"])
            missing = _fill(file, finished, rows, make_rows)
            for _ in progress(missing, "examples", total=rows, initial=finished):
                pass
        return cls(path)


def _fill(
    file: h5py.File, finished: int, rows: int, make_rows: Callable[[int], Arrays]
) -> Iterator[None]:
    """Make the rows that are missing; yield once for each."""
    while finished < rows:
        first = finished
        finished = _append(file, make_rows(first), first, rows)
        yield from (None for _ in range(finished - first))


def _opened(path: Path, key: str) -> h5py.File:
    """Open a file to go on with, or an empty one."""
    try:
        file = h5py.File(path, "r+")
        if file.attrs.get("key") == key:
            return file
        file.close()
    except OSError:
        pass
    file = h5py.File(path, "w")
    file.attrs.update({"key": key, "finished": 0})
    return file


def _append(file: h5py.File, made: Mapping[str, NDArray], first: int, rows: int) -> int:
    """Write arrays behind the finished rows; return how many are finished now."""
    count = min(len(next(iter(made.values()))), rows - first)
    for name, values in made.items():
        if name not in file:
            shape = (rows, *values.shape[1:])
            file.create_dataset(name, shape, values.dtype, chunks=(1, *values.shape[1:]))
        file[name][first : first + count] = values[:count]
    file.flush()
    file.attrs["finished"] = first + count
    file.flush()
    return first + count
