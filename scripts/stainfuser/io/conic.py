"""The CoNIC challenge's data: ``images.npy``, ``labels.npy``, ``counts.csv`` in one folder.

`images.npy` is (N, H, W, 3) RGB, `labels.npy` (N, H, W, 2) instance and class. The columns of
`counts.csv` name the classes 1 to C; its numbers are of the patches' middles and are not needed
here. `patch_info.csv`, where present, names the image that each patch was cut from
(``consep_1-0003``), so that patches of one image stay together. Arrays are mapped, not loaded.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.io.images import check_file
from stainfuser.io.nucleus_set import NucleusImage, NucleusSet
from stainfuser.logs import LOGGER

CLASSES = ("neutrophil", "epithelial", "lymphocyte", "plasma", "eosinophil", "connective")
MPP = 0.5
REMEDY = "give the arrays as the challenge publishes them"


def read_conic(folder: str | Path) -> NucleusSet:
    """Open a folder of the challenge.

    Raises
    ------
    InputError
        An array is missing, damaged, of another shape or dtype, of another number of patches than
        its partner, or its classes are none of `counts.csv`'s.
    """
    folder = Path(folder)
    images = _load(folder / "images.npy", channels=3, kinds="uif")
    labels = _load(folder / "labels.npy", channels=2, kinds="uif")
    if images.shape[:3] != labels.shape[:3]:
        wrong = f"its shape {labels.shape} does not go with {images.shape} of images.npy"
        raise InputError(folder / "labels.npy", wrong, REMEDY)
    if not len(images):
        raise InputError(folder / "images.npy", "it holds no patch", REMEDY)
    classes = _read_classes(folder / "counts.csv", len(images))
    members = _read_members(folder / "patch_info.csv", len(images))

    def read(index: int) -> NucleusImage:
        name, group = members[index]
        rgb = _as_rgb(folder / "images.npy", images[index], name)
        label = _as_labels(folder / "labels.npy", labels[index], name, len(classes))
        return NucleusImage(name, group, rgb, label)

    return NucleusSet("conic", classes, MPP, members, read)


def _load(path: Path, channels: int, kinds: str) -> NDArray:
    check_file(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(path, f"not an intact array of numbers ({error})", REMEDY) from None
    if array.ndim != 4 or array.shape[3] != channels or array.dtype.kind not in kinds:
        wrong = f"it holds {array.dtype} of shape {array.shape}, "
        wrong += f"expected whole numbers of shape (N, H, W, {channels})"
        raise InputError(path, wrong, REMEDY)
    return array


def _as_rgb(path: Path, pixels: NDArray, name: str) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8:
        _check_whole(path, pixels, name, 255)
    return np.ascontiguousarray(pixels).astype(np.uint8)


def _as_labels(path: Path, labels: NDArray, name: str, classes: int) -> NDArray[np.int32]:
    _check_whole(path, labels, name, np.iinfo(np.int32).max)
    found = np.ascontiguousarray(labels).astype(np.int32)
    if found[..., 1].max() > classes:
        wrong = f"patch {name} has class {found[..., 1].max()}, and there are {classes} classes"
        raise InputError(path, wrong, "name every class in a column of counts.csv")
    if ((found[..., 0] > 0) != (found[..., 1] > 0)).any():
        wrong = f"patch {name} has nuclei without a class or classes without a nucleus"
        raise InputError(path, wrong, REMEDY)
    return found


def _check_whole(path: Path, values: NDArray, name: str, largest: int) -> None:
    """Some releases store whole numbers as floating point; anything else is another unit."""
    low, high = values.min(), values.max()
    is_whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
    # Images in [0, 1] are whole only if they are black and white.
    if not is_whole or low < 0 or high > largest:
        wrong = f"patch {name} holds {values.dtype} in [{low:g}, {high:g}]"
        raise InputError(path, wrong, f"store whole numbers from 0 to {largest}")


def _read_classes(path: Path, patches: int) -> tuple[str, ...]:
    """Return the names of the classes; without a file, those of the challenge."""
    if not path.exists():
        return CLASSES
    rows = _read_rows(path)
    if not rows or len(rows) - 1 != patches:
        wrong = f"it has {max(len(rows) - 1, 0)} rows, and images.npy {patches} patches"
        raise InputError(path, wrong, "give the counts of these patches, or remove the file")
    names = tuple(name.strip() for name in rows[0])
    if not all(names) or len(set(names)) != len(names):
        wrong = f"its columns {', '.join(rows[0])} do not name each class once"
        raise InputError(path, wrong, "give one column per class, in the order of the labels")
    return names


def _read_members(path: Path, patches: int) -> tuple[tuple[str, str], ...]:
    """Return name and image of every patch; without a file, each patch is its own image."""
    if not path.exists():
        LOGGER.warning("%s: missing; patches of one image may be on both sides.", path.name)
        names = [f"patch-{index:05d}" for index in range(patches)]
        return tuple(zip(names, names, strict=True))
    names = [row[0] for row in _read_rows(path)[1:] if row]
    if len(names) != patches:
        wrong = f"it names {len(names)} patches, and images.npy has {patches}"
        raise InputError(path, wrong, "give the table of these patches, or remove the file")
    return tuple((name, name.rpartition("-")[0] or name) for name in names)


def _read_rows(path: Path) -> list[list[str]]:
    check_file(path)
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            return [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"not a readable table ({error})", REMEDY) from None
