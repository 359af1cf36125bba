"""Shards: what one training target made of its sources, written whole or not at all.

While a shard is being made its rows lie in a work folder: pixels in a memory-mapped `.npy`, scores
in another, and the number of finished rows in a small file that is renamed into place after the
rows are on disk. A killed job goes on after the last finished row. The HDF5 file itself is written
once, at the end, so that it is the same bytes whether or not the job was ever killed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path, read_json, sha256_content, write_json

_REBUILD = "delete it and run the workflow again"


class ShardDraft:
    """Rows of a shard in the making.

    Parameters
    ----------
    work_dir
        Folder of the unfinished rows; made if absent.
    key
        All that the rows depend on, JSON-able; rows of another key are discarded.
    rows, image_shape, score_names
        Number of rows, (S, S, 3), and the columns of the scores.

    Attributes
    ----------
    finished
        Rows that are safely on disk.
    """

    def __init__(
        self,
        work_dir: str | Path,
        key: Mapping[str, Any],
        rows: int,
        image_shape: tuple[int, int, int],
        score_names: Sequence[str],
    ) -> None:
        self.work_dir = Path(work_dir)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.score_names = tuple(score_names)
        self._counter_path = self.work_dir / "finished.json"
        self._key = sha256_content([key, rows, image_shape, self.score_names])
        self.finished = self._read_counter()
        mode = "r+" if self.finished else "w+"
        shapes = {"stylized": (rows, *image_shape), "scores": (rows, len(self.score_names))}
        self.stylized, self.scores = (
            np.lib.format.open_memmap(self.work_dir / f"{name}.npy", mode, kind, shapes[name])
            for name, kind in (("stylized", np.uint8), ("scores", np.float64))
        )

    def put(self, row: int, image: NDArray[np.uint8], scores: Mapping[str, float]) -> None:
        """Store one row; it counts as finished after `commit`."""
        self.stylized[row] = image
        self.scores[row] = [scores[name] for name in self.score_names]

    def commit(self, finished: int) -> None:
        """Force rows to disk, then say that the first `finished` of them are done."""
        self.stylized.flush()
        self.scores.flush()
        write_json(self._counter_path, {"key": self._key, "finished": finished})
        self.finished = finished

    def discard(self) -> None:
        """Remove the work folder."""
        del self.stylized, self.scores
        shutil.rmtree(self.work_dir)

    def _read_counter(self) -> int:
        try:
            counter = read_json(self._counter_path)
            whole = all((self.work_dir / f"{n}.npy").is_file() for n in ("stylized", "scores"))
            return int(counter["finished"]) if whole and counter["key"] == self._key else 0
        except (OSError, ValueError, KeyError, TypeError):
            return 0


def write_shard(
    path: str | Path,
    draft: ShardDraft,
    source_index: Sequence[int],
    attributes: Mapping[str, Any],
) -> None:
    """Write a finished draft: `stylized` (n, S, S, 3), `source_index` and `scores/<name>` (n,)."""
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        image_shape = draft.stylized.shape[1:]
        store = file.create_dataset(
            "stylized", draft.stylized.shape, np.uint8, chunks=(1, *image_shape)
        )
        for row, image in enumerate(draft.stylized):
            store[row] = image
        file["source_index"] = np.asarray(source_index, np.int64)
        for column, name in enumerate(draft.score_names):
            file[f"scores/{name}"] = np.array(draft.scores[:, column])
        file.attrs.update(attributes)


@dataclass(frozen=True)
class ShardInfo:
    """What a shard holds, without its pixels.

    Attributes
    ----------
    source_index
        (n,) int64 source of each row.
    scores
        Name → (n,) float64.
    image_shape
        (S, S, 3).
    attrs
        Attributes of the file.
    """

    source_index: NDArray[np.int64]
    scores: dict[str, NDArray[np.float64]]
    image_shape: tuple[int, int, int]
    attrs: dict[str, Any]


def read_shard_info(path: str | Path) -> ShardInfo:
    """Read all of a shard but its pixels."""
    try:
        with h5py.File(path, "r") as file:
            scores = {name: values[:] for name, values in file["scores"].items()}
            shape = file["stylized"].shape[1:]
            return ShardInfo(file["source_index"][:], scores, shape, dict(file.attrs))
    except (OSError, KeyError) as error:
        raise InputError(path, f"not an intact shard ({error})", _REBUILD) from None
