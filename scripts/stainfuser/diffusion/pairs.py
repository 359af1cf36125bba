"""Training pairs: which are held out, and batches drawn from (seed, step) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.errors import InputError
from stainfuser.seeds import generator

PARTS = ("train", "held_out_sources", "held_out_targets", "held_out_both")


@dataclass(frozen=True)
class Split:
    """(P, 2) int64 (target, source) rows of every part; see `PARTS`."""

    rows: dict[str, NDArray[np.int64]]

    def __getitem__(self, part: str) -> NDArray[np.int64]:
        return self.rows[part]


def split_pairs(
    planned: NDArray[np.bool_], seed: int, source_fraction: float, target_fraction: float
) -> Split:
    """Hold out whole sources and whole targets.

    Parameters
    ----------
    planned
        (T, N) bool: which pairs exist.
    seed
        Chooses what is held out.
    source_fraction, target_fraction
        Fractions held out; rounded down, but at least one of three or more, and never all.
    """
    if not planned.any():
        raise InputError("pairs", "no pair is planned", "lower the demands of plan_pairs")
    targets, sources = planned.shape
    is_new_source = _held_out(sources, source_fraction, generator(seed, "held out sources"))
    is_new_target = _held_out(targets, target_fraction, generator(seed, "held out targets"))
    rows = np.argwhere(planned)
    kind = is_new_source[rows[:, 1]] + 2 * is_new_target[rows[:, 0]]
    parts = {part: rows[kind == number] for number, part in enumerate(PARTS)}
    if not len(parts["train"]):
        # A sparse plan may leave nothing; training matters more than measuring.
        parts = {part: rows if part == "train" else rows[:0] for part in PARTS}
    return Split(parts)


def _held_out(count: int, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    number = max(int(count * fraction), 1 if fraction > 0 and count >= 3 else 0)
    chosen = np.zeros(count, np.int64)
    chosen[rng.permutation(count)[: min(number, count - 1)]] = 1
    return chosen


class PairReader(Protocol):
    """Where the pixels are (`io.pair_store.PairStore`); images are (S, S, 3) uint8 RGB."""

    planned: NDArray[np.bool_]
    image_px: int

    def source(self, index: int) -> NDArray[np.uint8]:
        """Return a source."""

    def target(self, index: int) -> NDArray[np.uint8]:
        """Return a target."""

    def stylized(self, target: int, source: int) -> NDArray[np.uint8]:
        """Return the source in the target's stain."""


class PairImages:
    """Pixels of pairs; images once read are kept, up to `memory_bytes`."""

    def __init__(self, reader: PairReader, memory_bytes: int = 4_000_000_000) -> None:
        self._reader = reader
        self._room = memory_bytes
        self._kept: dict[tuple[str, tuple[int, ...]], NDArray[np.uint8]] = {}

    @property
    def image_px(self) -> int:
        """Side of all images, px."""
        return self._reader.image_px

    def sources(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the sources of (P, 2) rows, each (S, S, 3) uint8."""
        return [self._read("source", int(s)) for _, s in rows]

    def targets(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the targets of (P, 2) rows, each (S, S, 3) uint8."""
        return [self._read("target", int(t)) for t, _ in rows]

    def stylized(self, rows: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        """Return the stylised images of (P, 2) rows, each (S, S, 3) uint8."""
        return [self._read("stylized", int(t), int(s)) for t, s in rows]

    def _read(self, name: str, *index: int) -> NDArray[np.uint8]:
        key = (name, index)
        if key in self._kept:
            return self._kept[key]
        image = getattr(self._reader, name)(*index)
        if self._room >= image.nbytes:
            self._kept[key] = image
            self._room -= image.nbytes
        return image


def draw_rows(
    rows: NDArray[np.int64], count: int, seed: int, step: int, stream: int = 0
) -> NDArray[np.int64]:
    """Draw (count, 2) rows for one step, with replacement; a function of its arguments only."""
    return rows[generator(seed, "rows", step, stream).integers(0, len(rows), count)]


def spread_rows(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return at most `count` rows at equal distances."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def as_tensor(images: Sequence[NDArray[np.uint8]]) -> Tensor:
    """(H, W, 3) uint8 images of one size → (N, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255.0
