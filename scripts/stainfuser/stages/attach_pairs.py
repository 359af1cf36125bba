"""Take a published SPI-2M folder in place of pairs of one's own, without copying its arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import sha256_content
from stainfuser.io.images import read_image
from stainfuser.io.pair_store import write_attached_pairs
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp

# SPI-2M was cut at 40x.
PUBLISHED_MPP = 0.25
SOURCE_FOLDERS = ("sources", "source")
TARGET_FOLDERS = ("targets", "target")
_EXPECTED = "expected folders sources/ and targets/ of PNG files and one .npy per target"
_REMEDY = "check pairs.attach in the configuration and that the download is complete"


def attach_pairs(*, folder: str | Path, pairs_path: str | Path, mpp: float = PUBLISHED_MPP) -> None:
    """Write `pairs.h5` over a folder of published pairs.

    Sources and targets are PNG files in `sources/` and `targets/`; for every target there is one
    array ``<target>.npy`` of shape (N, S, S, 3) uint8, in any folder below, whose rows are the
    sources in the order of their sorted file names. The PNGs are decoded into `pairs.h5`; the
    arrays (6.6 TB as published) stay where they are and are referred to by relative path.

    Parameters
    ----------
    mpp
        Resolution of the images, um per px.

    Raises
    ------
    InputError
        A folder, image or array is missing, or counts and shapes do not fit together.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, f"{_EXPECTED}, but there is no such folder", _REMEDY)
    sources = _ImageFolder(folder, SOURCE_FOLDERS)
    targets = _ImageFolder(folder, TARGET_FOLDERS)
    paths = _match_arrays(folder, targets.names)
    image_shape = sources[0].shape
    for images in (sources, targets):
        images.expected_shape = image_shape
    offsets = [_data_offset(path, (len(sources), *image_shape)) for path in paths]
    content = [sources.names, targets.names, [path.name for path in paths], image_shape]
    write_attached_pairs(
        pairs_path,
        sources=sources,
        targets=targets,
        arrays=list(zip(paths, offsets, strict=True)),
        source_ids=sources.names,
        target_ids=targets.names,
        image_shape=image_shape,
        attributes={
            **make_stamp("attach_pairs", {"mpp": mpp}, names_sha256=sha256_content(content)),
            "mpp": mpp,
        },
    )
    LOGGER.info("attached %d sources x %d targets", len(sources), len(targets))


class _ImageFolder(Sequence[NDArray[np.uint8]]):
    """The PNG files of a folder in sorted order, each read when it is asked for."""

    def __init__(self, folder: Path, candidates: tuple[str, ...]) -> None:
        found = [folder / name for name in candidates if (folder / name).is_dir()]
        self._paths = sorted(found[0].glob("*.png")) if found else []
        if not self._paths:
            raise InputError(folder, f"{_EXPECTED}, but {candidates[0]}/ has no PNG", _REMEDY)
        self.names = [path.stem for path in self._paths]
        self.expected_shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        image = read_image(self._paths[index])
        if self.expected_shape not in (None, image.shape):
            wrong = f"its shape is {image.shape}, the first source's {self.expected_shape}"
            raise InputError(self._paths[index], wrong, _REMEDY)
        return image


def _match_arrays(folder: Path, target_names: list[str]) -> list[Path]:
    """Return the array of each target, found by its name."""
    arrays = {path.stem: path for path in sorted(folder.rglob("*.npy"))}
    missing = [name for name in target_names if name not in arrays]
    if missing:
        wrong = f"{len(missing)} of {len(target_names)} targets have no array, e.g. {missing[0]}"
        raise InputError(folder, wrong, _REMEDY)
    if len(arrays) > len(target_names):
        unused = sorted(set(arrays) - set(target_names))
        LOGGER.info("%d arrays have no target and are not used, e.g. %s", len(unused), unused[0])
    return [arrays[name] for name in target_names]


def _data_offset(path: Path, shape: tuple[int, ...]) -> int:
    """Return where the data of a `.npy` begins, bytes; its header must promise `shape`, uint8."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(path, f"not an intact .npy array ({error})", _REMEDY) from None
    if array.shape != shape or array.dtype != np.uint8 or not array.flags.c_contiguous:
        wrong = f"it holds {array.dtype} {array.shape}, expected uint8 {shape} in C order"
        raise InputError(path, wrong, _REMEDY)
    return int(array.offset)
