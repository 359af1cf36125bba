"""Evaluation tiles of a slide, and what an arm made of them: two kinds of HDF5 files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path

_ARRAYS = ("source", "coords", "rows", "truth", "nuclei", "source_nuclei")
_OPTIONAL = ("truth", "nuclei")
_REMEDY = "delete it and run the workflow again"


@dataclass(frozen=True)
class EvaluationSample:
    """The tiles of one slide that every arm is measured on, in the order they were drawn.

    The first rows of them are a random sample, too: slow arms take no more.

    Attributes
    ----------
    source
        (N, S, S, 3) uint8 RGB.
    coords
        (N, 2) int64 level-0 px, x then y.
    rows
        (N,) int64, their rows in the slide's tile store.
    truth
        (N, S, S, 3) uint8 RGB in the target's stain, or None.
    nuclei
        (N, S, S) int32 true instance labels, 0 outside, or None.
    source_nuclei
        (N, S, S) int32: what `stain.nucleus_segmentation` finds in the source, once for all arms.
    attrs
        `slide`, `mpp`, `level0_tile_px`, `truth_target` (name of the target the truth belongs to,
        or empty) and the stamp.
    """

    source: NDArray[np.uint8]
    coords: NDArray[np.int64]
    rows: NDArray[np.int64]
    truth: NDArray[np.uint8] | None
    nuclei: NDArray[np.int32] | None
    source_nuclei: NDArray[np.int32]
    attrs: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.rows)

    def truth_of(self, target: str) -> NDArray[np.uint8] | None:
        """Return the truth if it belongs to this target, else None."""
        return self.truth if self.attrs.get("truth_target") == target else None


def write_sample(path: str | Path, sample: EvaluationSample) -> None:
    """Write a sample; arrays that are None are left out."""
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        for name in _ARRAYS:
            values = getattr(sample, name)
            if values is not None:
                _put(file, name, values)
        file.attrs.update(sample.attrs)


def read_sample(path: str | Path) -> EvaluationSample:
    """Read what `write_sample` wrote; raises `InputError` for anything else."""
    with _opened(path) as file:
        arrays = {name: file[name][:] if name in file else None for name in _ARRAYS}
        if any(arrays[name] is None for name in _ARRAYS if name not in _OPTIONAL):
            raise InputError(path, "it is no sample of evaluation tiles", _REMEDY)
        return EvaluationSample(**arrays, attrs=_plain(file.attrs))


@dataclass(frozen=True)
class ArmResult:
    """What an arm made of one slide's tiles for one target: of the sample's first rows.

    Attributes
    ----------
    image
        (n, S, S, 3) uint8 RGB; black where nothing was made.
    is_made
        (n,) bool.
    notes
        A sentence for each tile that needs one, else "".
    """

    image: NDArray[np.uint8]
    is_made: NDArray[np.bool_]
    notes: Sequence[str]


@contextmanager
def open_arm_writer(path: str | Path, attributes: Mapping[str, Any]) -> Iterator[ArmWriter]:
    """Yield an `ArmWriter`; the file takes its name when the block ends without an error."""
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(attributes)
        yield ArmWriter(file)


class ArmWriter:
    """Add results to an arm's file; made by `open_arm_writer`."""

    def __init__(self, file: h5py.File) -> None:
        self._file = file

    def add(self, target: str, slide: str, result: ArmResult) -> None:
        """Add the results of one slide and target, as ``{target}/{slide}``."""
        group = self._file.create_group(f"{target}/{slide}")
        _put(group, "image", result.image)
        group["is_made"] = result.is_made
        group.create_dataset("notes", data=list(result.notes), dtype=h5py.string_dtype())
        group.attrs["rows"] = len(result.image)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Set attributes that are known at the end only."""
        self._file.attrs.update(attributes)


class ArmStore:
    """Read an arm's file.

    Attributes
    ----------
    attrs
        `arm`, `state` ("done", "failed" or "not run"), `failure` (a sentence or "") and the stamp.
    groups
        (target, slide) of every result, sorted.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with _opened(path) as file:
            self.attrs = _plain(file.attrs)
            self.groups = sorted((target, slide) for target in file for slide in file[target])

    def read(self, target: str, slide: str) -> ArmResult:
        """Return the results of one slide and target."""
        with _opened(self.path) as file:
            group = file[target][slide]
            notes = list(group["notes"].asstr()[:])
            return ArmResult(group["image"][:], group["is_made"][:], notes)


def _put(group: h5py.Group, name: str, values: NDArray) -> None:
    """Write an array, images with a chunk each and no filter: pixels hardly compress."""
    chunks = (1, *values.shape[1:]) if values.ndim >= 3 and values.size else None
    options = {"compression": "gzip"} if name.endswith("nuclei") and values.size else {}
    group.create_dataset(name, data=values, chunks=chunks, **options)


@contextmanager
def _opened(path: str | Path) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise InputError(path, "there is no such file", _REMEDY) from None
    except OSError as error:
        raise InputError(path, f"not a readable HDF5 file ({error})", _REMEDY) from None
    with file:
        yield file


def _plain(attrs: h5py.AttributeManager) -> dict[str, Any]:
    return {key: getattr(value, "item", lambda v=value: v)() for key, value in attrs.items()}
