"""What ablations train and test on: phantom tissue painted in laboratories drawn at random.

Every section can be painted in every laboratory, so that there is an exact truth for any source and
target. Truths keep the source's focus, noise and compression: stain and colour alone differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.pairs import PairImages, Split
from stainfuser.errors import ConfigError, InputError
from stainfuser.seeds import derive_seed, generator
from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.phantom_grid import SUBSTANCES, Grid
from stainfuser.stain.phantom_laboratories import Laboratory
from stainfuser.stain.phantom_layout import Composition, target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import Section, build_section
from stainfuser.stain.phantom_unseen import draw_laboratory, with_scanner_optics
from stainfuser.stain.recolouring import draw_recolouring
from stainfuser.stain.stain_directions import stain_directions
from stainfuser.stain.style import class_guided

# 40x; 20x is every tile averaged by two.
MPP = 0.25
# Sections are so many tiles wide; narrower ones hold next to no tissue.
SECTION_TILES, LEAST_SECTION_PX = 4, 640
# Rendered around a tile, px, for blur and glare.
MARGIN_PX = 16
MIN_TISSUE_FRACTION, ATTEMPTS = 0.3, 16
# Laboratories that the sources come from; those of targets and of the test are others.
SOURCE_LABORATORIES = 6
INK = SUBSTANCES.index("ink")

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class AblationPhantoms:
    """Arrays of uint8 RGB tiles (..., S, S, 3); `names` of `to_arrays` are those of the file.

    `source` (N): tiles, `laboratory` (N) the number of the one that painted each; `target` (T);
    `rows` (T, K): the sources that were painted in each target's laboratory, `truth` (T, K).
    `test_*` (M): other sections in other laboratories, `test_laboratory` (M) that of the target,
    `test_nuclei` (M, S, S) the number of the nucleus each px of the test's sources belongs to.
    """

    source: Images
    laboratory: NDArray[np.int64]
    target: Images
    rows: NDArray[np.int64]
    truth: Images
    test_source: Images
    test_target: Images
    test_truth: Images
    test_laboratory: NDArray[np.int64]
    test_nuclei: NDArray[np.uint16]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return name → array."""
        return dict(vars(self))


def draw_phantoms(
    *,
    sections: int,
    tile_px: int,
    sources: int,
    targets: int,
    sources_per_target: int,
    test_pairs: int,
    seed: int,
    composition: Composition | None = None,
) -> AblationPhantoms:
    """Grow sections and paint tiles of them; about three test pairs share a target laboratory.

    Sources show tissue of `composition` (None: every kind), targets always every kind. The
    laboratories do not depend on it.
    """

    def rng(*purpose: object) -> np.random.Generator:
        return generator(seed, "ablation", *purpose)

    mixed = [_grow(tile_px, rng("section", number)) for number in range(sections)]
    grown = mixed
    if composition is not None:
        grown = [_grow(tile_px, rng("section", n), composition) for n in range(sections)]
    scanners = [draw_laboratory(rng("scanner", n)) for n in range(SOURCE_LABORATORIES)]
    laboratory = np.arange(sources) % SOURCE_LABORATORIES
    parts = [_cut(grown, tile_px, rng("source", n)) for n in range(sources)]
    source = [
        _paint(part, scanners[lab], seed, n)
        for n, (part, lab) in enumerate(zip(parts, laboratory, strict=True))
    ]
    count = min(sources_per_target, sources)
    target, rows, truth = [], [], []
    for number in range(targets):
        painter = draw_laboratory(rng("target laboratory", number))
        part = _cut(mixed, tile_px, rng("target", number))
        target.append(_paint(part, painter, seed, "target", number))
        chosen = np.sort(rng("rows", number).permutation(sources)[:count])
        rows.append(chosen)
        truth.append([_truth(parts[n], painter, scanners[laboratory[n]], seed, n) for n in chosen])
    test = _draw_test(tile_px, test_pairs, seed, composition)
    return AblationPhantoms(
        np.stack(source), laboratory, np.stack(target), np.stack(rows), np.array(truth), *test
    )


def read_phantoms(path: str | Path) -> AblationPhantoms:
    """Read the file that `make_ablation_phantoms` wrote; raises `InputError` if it is another."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return AblationPhantoms(**{name: values[()] for name, values in file.items()})
    except (OSError, TypeError) as error:
        wrong = f"it does not hold the ablation's phantoms ({error})"
        raise InputError(path, wrong, "delete it and run again") from None


class AblationPairs:
    """A `pairs.PairReader` of the phantoms' first `targets` targets, stylised by one method.

    Methods: "truth" (as painted), "class_guided", "recolour" (targets and stylised images are
    recoloured tiles of the source's own laboratory), "nst" and "nst_operator".
    """

    def __init__(
        self, phantoms: AblationPhantoms, targets: int, method: str, options: Mapping[str, Any]
    ) -> None:
        if targets > len(phantoms.target):
            wrong = f"{targets} targets were asked for, {len(phantoms.target)} were painted"
            raise ConfigError("ablation.axes.targets", wrong, "paint the phantoms again")
        self._phantoms, self._method, self._options = phantoms, method, options
        self.image_px = phantoms.source.shape[1]
        self.planned = np.zeros((targets, len(phantoms.source)), bool)
        self._targets = list(phantoms.target[:targets])
        self._rows = [list(map(int, row)) for row in phantoms.rows[:targets]]
        self._stylized: dict[tuple[int, int], Images] = {}
        self._make = [self._maker(number) for number in range(targets)]
        for number, row in enumerate(self._rows):
            self.planned[number, row] = True

    def source(self, index: int) -> Images:
        """Return a source."""
        return self._phantoms.source[index]

    def target(self, index: int) -> Images:
        """Return a target."""
        return self._targets[index]

    def stylized(self, target: int, source: int) -> Images:
        """Return the source in the target's stain, made when it is first asked for."""
        key = (target, source)
        if key not in self._stylized:
            self._stylized[key] = self._make[target](source)
        return self._stylized[key]

    def images(self) -> PairImages:
        """Return these pairs as training reads them."""
        return PairImages(self)

    def split(self) -> Split:
        """Return all pairs as training pairs: what is held out are other sections."""
        rows = np.argwhere(self.planned)
        return Split(
            {
                "train": rows,
                "held_out_sources": rows[:0],
                "held_out_targets": rows[:0],
                "held_out_both": rows[:0],
            }
        )

    def _maker(self, number: int) -> Callable[[int], Images]:
        if self._method == "truth":
            known = dict(zip(self._rows[number], self._phantoms.truth[number], strict=True))
            return lambda source: known[source]
        if self._method == "recolour":
            return self._recoloured(number)
        target = self._targets[number]
        if self._method == "class_guided":
            return lambda source: class_guided(self.source(source), target)
        transfer = _neural_transfer(self._method, target, self._options)
        return lambda source: transfer(self.source(source))

    def _recoloured(self, number: int) -> Callable[[int], Images]:
        """Put a recolouring of one laboratory's tiles in place of a target and its truths."""
        laboratories = self._phantoms.laboratory
        own = np.flatnonzero(laboratories == number % SOURCE_LABORATORIES)
        if not len(own):
            own = np.arange(len(laboratories))
        reference = self.source(int(own[-1]))
        rng = np.random.default_rng(number)
        directions = stain_directions(rgb_to_od(reference[::2, ::2]))
        recolour = draw_recolouring(directions, reference, rng)
        self._targets[number] = recolour(reference)
        self._rows[number] = [int(n) for n in own[:-1]] or [int(own[-1])]
        return lambda source: recolour(self.source(source))


def _neural_transfer(
    method: str, target: Images, options: Mapping[str, Any]
) -> Callable[[Images], Images]:
    from stainfuser.nn.feature_networks import load_feature_network
    from stainfuser.nn.gram_style import GramStyle, GramStyleOptions

    network = load_feature_network(
        options["feature_network"],
        options["feature_weights"],
        allow_random_weights=options["allow_random_weights"],
        seed=0,
    )
    names = ("optimizer", "iterations", "content_weight", "style_weight")
    style = GramStyle(network, target, GramStyleOptions(**{name: options[name] for name in names}))
    return style.pixels if method == "nst" else style.operator


def _draw_test(
    tile_px: int, count: int, seed: int, composition: Composition | None
) -> tuple[Images, Images, Images, NDArray[np.int64], NDArray[np.uint16]]:
    """Return sources, targets, truths, target laboratories and nuclei of other sections."""

    def rng(*purpose: object) -> np.random.Generator:
        return generator(seed, "ablation", "test", *purpose)

    groups = max(count // 3, 1)
    mixed = [_grow(tile_px, rng("section", number)) for number in range(2)]
    grown = mixed
    if composition is not None:
        grown = [_grow(tile_px, rng("section", number), composition) for number in range(2)]
    laboratory = np.arange(count) % groups
    source, target, truth, nuclei = [], [], [], []
    for number, group in enumerate(laboratory):
        here, there = draw_laboratory(rng("here", number)), draw_laboratory(rng("there", group))
        part = _cut(grown, tile_px, rng("source", number))
        source.append(_paint(part, here, seed, "test", number))
        truth.append(_truth(part, there, here, seed, "test", number))
        nuclei.append(part.labels[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX])
        other = _cut(mixed, tile_px, rng("target", number))
        target.append(_paint(other, there, seed, "test target", number))
    images = (np.stack(source), np.stack(target), np.stack(truth))
    return *images, laboratory, np.stack(nuclei)


def _grow(
    tile_px: int, rng: np.random.Generator, composition: Composition | None = None
) -> Section:
    grid = Grid(max(SECTION_TILES * tile_px, LEAST_SECTION_PX), MPP)
    return build_section(rng, grid, composition or target_composition(grid), artefacts=False)


def _cut(sections: list[Section], tile_px: int, rng: np.random.Generator) -> Section:
    """Cut a tile with its margin from one of the sections; one with tissue, if that is found."""
    section = sections[int(rng.integers(len(sections)))]
    side = tile_px + 2 * MARGIN_PX
    for _ in range(ATTEMPTS):
        top, left = rng.integers(0, section.grid.side_px - side + 1, 2)
        amounts = section.amounts[:, top : top + side, left : left + side]
        if (amounts[:INK].sum(axis=0) > 0.1).mean() >= MIN_TISSUE_FRACTION:
            break
    labels = section.labels[top : top + side, left : left + side]
    return Section(section.grid, np.ascontiguousarray(amounts), section.pen, labels)


def _paint(part: Section, laboratory: Laboratory, seed: int, *purpose: object) -> Images:
    """Stain and scan a tile; the same purpose gives the same noise."""
    rng = np.random.default_rng(derive_seed(seed, "ablation noise", *purpose))
    return render(part, laboratory, rng)[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def _truth(
    part: Section, laboratory: Laboratory, scanner: Laboratory, seed: int, *purpose: object
) -> Images:
    return _paint(part, with_scanner_optics(laboratory, scanner), seed, *purpose)
