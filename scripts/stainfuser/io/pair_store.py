"""Training pairs as one file of views: sources, targets and what every target made of each source.

`pairs.h5` holds no pixels of its own. `source` (N, S, S, 3) and `target` (T, S, S, 3) are external
links, `stylized` (T, N, S, S, 3) is a virtual dataset over the shards; all by relative path, so
that the results folder can be moved. Sources that a target was not planned for read as zeros and
are False in `planned` (T, N). A published SPI-2M folder takes the same form: its arrays stay where
they are and become the raw storage of `stylized`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path

_REBUILD = "delete it and run the workflow again"
# HDF5 looks for raw storage relative to the file that names it, not to the working folder.
ORIGIN = "${ORIGIN}"


def write_pair_views(
    path: str | Path,
    *,
    sources_path: str | Path,
    targets_path: str | Path,
    shard_paths: Sequence[str | Path],
    source_indices: Sequence[NDArray[np.int64]],
    source_ids: Sequence[str],
    target_ids: Sequence[str],
    image_shape: tuple[int, int, int],
    attributes: Mapping[str, Any],
) -> None:
    """Write `pairs.h5` over image stores and one shard per target, in the order of `target_ids`.

    `source_indices` say which source each row of a shard belongs to.
    """
    folder = Path(path).resolve().parent
    shards = [os.path.relpath(Path(shard).resolve(), folder) for shard in shard_paths]
    row_of = np.full((len(target_ids), len(source_ids)), -1, np.int32)
    for target, rows in enumerate(source_indices):
        row_of[target, rows] = np.arange(len(rows))
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for name, store in (("source", sources_path), ("target", targets_path)):
            relative = os.path.relpath(Path(store).resolve(), folder)
            file[name] = h5py.ExternalLink(relative, "/images")
        layout = _virtual_layout(shards, source_indices, row_of.shape, image_shape)
        file.create_virtual_dataset("stylized", layout, fillvalue=0)
        file["shard"] = np.array(shards, h5py.string_dtype())
        file["row_of"] = row_of
        _write_names(file, source_ids, target_ids, row_of >= 0, attributes)


def write_attached_pairs(
    path: str | Path,
    *,
    sources: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    targets: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    arrays: Sequence[tuple[str | Path, int]],
    source_ids: Sequence[str],
    target_ids: Sequence[str],
    image_shape: tuple[int, int, int],
    attributes: Mapping[str, Any],
) -> None:
    """Write `pairs.h5` over raw (N, S, S, 3) uint8 arrays of others, without copying them.

    `arrays` are (file, offset of its data in bytes), one per target. `sources` and `targets` are
    read one image at a time and stored.
    """
    folder = Path(path).resolve().parent
    shape = (len(target_ids), len(source_ids), *image_shape)
    bytes_each = int(np.prod(shape[1:], dtype=np.int64))
    segments = [
        (os.path.relpath(Path(array).resolve(), folder), offset, bytes_each)
        for array, offset in arrays
    ]
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for name, images in (("source", sources), ("target", targets)):
            store = file.create_dataset(
                name, (len(images), *image_shape), np.uint8, chunks=(1, *image_shape)
            )
            for row in range(len(images)):
                store[row] = images[row]
        file.create_dataset("stylized", shape, np.uint8, external=segments, efile_prefix=ORIGIN)
        _write_names(file, source_ids, target_ids, np.ones(shape[:2], bool), attributes)


class PairStore:
    """Read training pairs.

    Files are opened at the first access and kept open, once per process, so that a store can be
    handed to the workers of a data loader.

    Attributes
    ----------
    planned
        (T, N) bool: the pairs that exist.
    source_ids, target_ids
        Names of the N sources and T targets.
    mpp
        Resolution of all images, um per px.
    image_px
        Their side, px.

    Raises
    ------
    InputError
        The file, or one that it refers to, is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reset()
        try:
            with h5py.File(self.path, "r") as file:
                self.planned: NDArray[np.bool_] = file["planned"][:]
                self.source_ids = list(file["source_id"].asstr()[:])
                self.target_ids = list(file["target_id"].asstr()[:])
                self.attrs = dict(file.attrs)
                self.mpp = float(file.attrs["mpp"])
                self.image_px = int(file["stylized"].shape[2])
                self._shards = list(file["shard"].asstr()[:]) if "shard" in file else []
                self._row_of = file["row_of"][:] if "row_of" in file else None
                external = [] if self._shards else _raw_files(file["stylized"])
        except FileNotFoundError:
            raise InputError(path, "there is no such file", "run the rule merge_pairs") from None
        except (OSError, KeyError) as error:
            raise InputError(path, f"not an intact file of pairs ({error})", _REBUILD) from None
        for name in [*self._shards, *external]:
            if not (self.path.parent / name).is_file():
                remedy = "move it back, or delete the file of pairs and run again"
                raise InputError(path, f"the file {name} it refers to is missing", remedy)

    def __getstate__(self) -> dict[str, Any]:
        closed = {"_pid": 0, "_file": None, "_datasets": {}}
        return {**self.__dict__, **closed}

    def __enter__(self) -> PairStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pairs(self) -> NDArray[np.int64]:
        """All pairs that exist, (P, 2) int64: target, source."""
        return np.argwhere(self.planned)

    def source(self, index: int) -> NDArray[np.uint8]:
        """Return source `index`, (S, S, 3) uint8 RGB."""
        return self._read("source", index)

    def target(self, index: int) -> NDArray[np.uint8]:
        """Return target `index`, (S, S, 3) uint8 RGB."""
        return self._read("target", index)

    def stylized(self, target: int, source: int) -> NDArray[np.uint8]:
        """Return `source` in the stain of `target`, (S, S, 3) uint8 RGB.

        Raises `IndexError` for a pair that was not planned.
        """
        if not self.planned[target, source]:
            raise IndexError(f"no pair of target {target} and source {source}")
        if self._row_of is None:
            return self._read("stylized", (target, source))
        # Not through the virtual dataset: HDF5 would search all of its mappings at every read.
        return self._read(self._shards[target], int(self._row_of[target, source]))

    def close(self) -> None:
        """Close all files; a later access opens them again."""
        if self._pid == os.getpid():
            for dataset in self._datasets.values():
                if dataset.id.valid:
                    dataset.file.close()
            if self._file is not None:
                self._file.close()
        self._reset()

    def _reset(self) -> None:
        self._pid, self._file, self._datasets = 0, None, {}

    def _read(self, name: str, index: int | tuple[int, int]) -> NDArray[np.uint8]:
        if self._pid != os.getpid():
            self._reset()
            self._pid = os.getpid()
        try:
            if name not in self._datasets:
                self._datasets[name] = self._open(name)
            return self._datasets[name][index]
        except (OSError, KeyError) as error:
            raise InputError(self.path, f"{name} cannot be read ({error})", _REBUILD) from None

    def _open(self, name: str) -> h5py.Dataset:
        if name in self._shards:
            return h5py.File(self.path.parent / name, "r")["stylized"]
        if self._file is None:
            self._file = h5py.File(self.path, "r")
        if name != "stylized":
            return self._file[name]
        access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
        access.set_efile_prefix(ORIGIN.encode())
        return h5py.Dataset(h5py.h5d.open(self._file.id, b"stylized", access))


def _virtual_layout(
    shards: Sequence[str],
    source_indices: Sequence[NDArray[np.int64]],
    grid: tuple[int, int],
    image_shape: tuple[int, int, int],
) -> h5py.VirtualLayout:
    """Map every run of consecutive sources to a run of rows of its shard."""
    layout = h5py.VirtualLayout((*grid, *image_shape), np.uint8)
    # HDF5 would note the time, and the same pairs would never be the same bytes.
    layout.dcpl.set_obj_track_times(False)
    for target, (shard, indices) in enumerate(zip(shards, source_indices, strict=True)):
        rows = h5py.VirtualSource(shard, "stylized", (len(indices), *image_shape), np.uint8)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        for start, stop in zip([0, *breaks], [*breaks, len(indices)], strict=True):
            first = int(indices[start])
            layout[target, first : first + int(stop - start)] = rows[int(start) : int(stop)]
    return layout


def _write_names(
    file: h5py.File,
    source_ids: Sequence[str],
    target_ids: Sequence[str],
    planned: NDArray[np.bool_],
    attributes: Mapping[str, Any],
) -> None:
    file["source_id"] = np.array(source_ids, h5py.string_dtype())
    file["target_id"] = np.array(target_ids, h5py.string_dtype())
    file["planned"] = planned
    file["mpp"] = float(attributes["mpp"])
    file.attrs.update(attributes)


def _raw_files(dataset: h5py.Dataset) -> list[str]:
    return [name for name, _, _ in dataset.external or []]
