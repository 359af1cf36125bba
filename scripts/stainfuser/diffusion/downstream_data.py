"""Make the data set of the downstream task: from phantoms, or from outlined nuclei on disk.

One stain is trained on. What is tested on shows other tissue in other stains: phantoms painted by
the other laboratories; a data set's held-out images recoloured by maps that nothing else is trained
on, or as they are, where another laboratory made them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.io.downstream_store import DownstreamData
from stainfuser.io.nucleus_set import NucleusSet
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.downstream_scores import UNSHIFTED
from stainfuser.stain.held_out_recolouring import FAMILIES, draw_held_out
from stainfuser.stain.nucleus_phantoms import NUCLEUS_CLASSES, classified_labels, grow_tissue
from stainfuser.stain.nucleus_targets import at_mpp
from stainfuser.stain.phantom_laboratories import LABORATORIES, find_laboratory
from stainfuser.stain.phantom_optics import render

PHANTOMS, AS_SCANNED = "phantoms", "as scanned"
# Part of the groups of a data set that is tested on, where no laboratory is named to train on.
TEST_FRACTION = 0.3

Image = NDArray[np.uint8]
Labels = NDArray[np.int32]


@dataclass(frozen=True)
class Amounts:
    """How much of everything: numbers of tiles and references, and the side of a tile, px."""

    train_tiles: int
    test_tiles: int
    references: int
    tile_px: int
    mpp: float


def phantom_data(seed: int, laboratory: str, amounts: Amounts) -> DownstreamData:
    """Paint phantoms in the stain of `laboratory`, and test tissue in all the others'.

    Raises `ConfigError` for an unknown laboratory.
    """
    home = find_laboratory("downstream.laboratory", laboratory)
    side, mpp = amounts.tile_px, amounts.mpp
    train: list[tuple[Image, Labels]] = []
    for number in range(-(-amounts.train_tiles // 4)):
        rng = generator(seed, "downstream", "train", number)
        section = grow_tissue(rng, 2 * side, mpp)
        train += _tiles(render(section, home, rng), classified_labels(section), side)
    references = {}
    for number in range(1, amounts.references + 1):
        rng = generator(seed, "downstream", "reference", number)
        references[f"reference-{number}"] = render(grow_tissue(rng, 2 * side, mpp), home, rng)
    tests = [
        test
        for number in range(1, amounts.test_tiles + 1)
        for test in _phantom_tests(seed, laboratory, amounts, number)
    ]
    images, labels, original, shifts = zip(*tests, strict=True)
    names = tuple(
        f"section-{number}"
        for number in range(1, amounts.test_tiles + 1)
        for _ in range(len(tests) // amounts.test_tiles)
    )
    return DownstreamData(
        PHANTOMS,
        NUCLEUS_CLASSES,
        mpp,
        *(np.stack(part) for part in zip(*train[: amounts.train_tiles], strict=True)),
        np.stack(images),
        np.stack(labels),
        np.stack(original),
        shifts,
        names,
        names,
        references,
    )


def _phantom_tests(
    seed: int, laboratory: str, amounts: Amounts, number: int
) -> list[tuple[Image, Labels, Image, str]]:
    """Return image, labels, the image in the training stain and the shift of one piece of tissue.

    Under every shift, and unshifted.
    """
    rng = generator(seed, "downstream", "test", number)
    section = grow_tissue(rng, 2 * amounts.tile_px, amounts.mpp)
    labels = classified_labels(section)
    window = _fullest(labels, amounts.tile_px)

    def painted(name: str) -> Image:
        noise = generator(seed, "downstream", "noise", number, name)
        return render(section, LABORATORIES[name], noise)[window]

    at_home = painted(laboratory)
    away = {name: painted(name) for name in LABORATORIES if name != laboratory}
    return [
        (image, labels[window], at_home, name)
        for name, image in (away | {UNSHIFTED: at_home}).items()
    ]


def _fullest(labels: Labels, side: int) -> tuple[slice, slice]:
    """Return the window of `side` px, of those that tile an image, with most px of nuclei."""
    return max(_windows(labels, side), key=lambda window: int((labels[window][..., 0] > 0).sum()))


def nucleus_set_data(
    found: NucleusSet, seed: int, train_on: str | None, shifts: int, amounts: Amounts
) -> DownstreamData:
    """Divide a data set by its groups, and shift the stains of its test images.

    Parameters
    ----------
    found
        The data set.
    train_on
        Groups whose name begins so are trained on, all others tested; None: at random.
    shifts
        Recolourings of every test image; 0: they stay as they were scanned.

    Raises
    ------
    InputError
        Too few groups to divide, a group nothing begins with, images smaller than a tile, or no
        nucleus to learn from.
    """
    train_rows, test_rows = _divided(found, train_on, generator(seed, "downstream", "split"))
    order = generator(seed, "downstream", "order")
    train = _collect(found, order.permutation(train_rows), amounts, amounts.train_tiles)
    test = _collect(found, order.permutation(test_rows), amounts, amounts.test_tiles)
    if not any(tile.labels.any() for tile in train):
        raise InputError(found.name, "no image to train on shows a nucleus", "check its outlines")
    originals = np.stack([tile.rgb for tile in test])
    maps = _draw_maps(originals, shifts, generator(seed, "downstream", "recolouring"))
    shifted = [
        (name, i, change(originals[i])) for name, change in maps.items() for i in range(len(test))
    ]
    rows = [i for _, i, _ in shifted]
    return DownstreamData(
        found.name,
        found.classes,
        amounts.mpp,
        np.stack([tile.rgb for tile in train]),
        np.stack([tile.labels for tile in train]),
        np.stack([image for _, _, image in shifted]),
        np.stack([test[i].labels for i in rows]),
        originals[rows] if shifts else None,
        tuple(name for name, _, _ in shifted),
        tuple(test[i].name for i in rows),
        tuple(test[i].group for i in rows),
        _choose_references(train, amounts.references),
    )


@dataclass(frozen=True)
class _Tile:
    name: str
    group: str
    rgb: Image
    labels: Labels


def _divided(
    found: NucleusSet, train_on: str | None, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Return the rows to train and to test on; no group is on both sides."""
    groups = sorted({group for _, group in found.members})
    if train_on is None:
        drawn = rng.permutation(len(groups))
        count = max(1, round(TEST_FRACTION * len(groups)))
        tested = {groups[i] for i in drawn[:count]}
    else:
        tested = {group for group in groups if not group.startswith(train_on)}
    rows = range(len(found))
    train = [row for row in rows if found.members[row][1] not in tested]
    test = [row for row in rows if found.members[row][1] in tested]
    if not train or not test:
        wrong = (
            f"its {len(groups)} groups leave {len(train)} images to train and {len(test)} to test"
        )
        remedy = "give images of two slides at least, and check downstream.train_on"
        raise InputError(found.name, wrong, remedy)
    return train, test


def _collect(found: NucleusSet, rows: Sequence[int], amounts: Amounts, most: int) -> list[_Tile]:
    """Cut tiles of the wanted resolution from images in turn until there are enough."""
    tiles: list[_Tile] = []
    for row in rows:
        if len(tiles) >= most:
            break
        image = found.read(int(row))
        rgb, labels = at_mpp(image.rgb, image.labels, found.mpp, amounts.mpp)
        if min(rgb.shape[:2]) < amounts.tile_px:
            wrong = f"image {image.name} has {rgb.shape[1]} x {rgb.shape[0]} px at {amounts.mpp} um"
            raise InputError(found.name, wrong, "lower downstream.tile_px")
        cut = _tiles(rgb, labels, amounts.tile_px)
        tiles += [
            _Tile(f"{image.name} {number}", image.group, *pair)
            for number, pair in enumerate(cut, 1)
        ]
    return tiles[:most]


def _tiles(rgb: Image, labels: Labels, side: int) -> list[tuple[Image, Labels]]:
    """Cut tiles that do not overlap; what is left over at the right and below is dropped."""
    return [(rgb[window], labels[window]) for window in _windows(labels, side)]


def _windows(labels: Labels, side: int) -> list[tuple[slice, slice]]:
    """Return the windows of `side` px that lie side by side from the upper left corner on."""
    rows, columns = (length // side for length in labels.shape[:2])
    return [
        (slice(side * row, side * (row + 1)), slice(side * column, side * (column + 1)))
        for row in range(rows)
        for column in range(columns)
    ]


def _draw_maps(
    originals: Image, shifts: int, rng: np.random.Generator
) -> dict[str, Callable[[Image], Image]]:
    """Return name → map of colours; the same for all images, as another laboratory's would be."""
    if not shifts:
        return {AS_SCANNED: lambda image: image}
    sample = np.concatenate(list(originals[:4]), axis=1)
    families = [FAMILIES[number % len(FAMILIES)] for number in range(shifts)]
    maps = {}
    for number, family in enumerate(families, 1):
        maps[f"{family}-{number}"] = draw_held_out(sample, family, rng)
        LOGGER.info("recolouring %d of %d (%s) drawn", number, shifts, family)
    return maps | {UNSHIFTED: lambda image: image}


def _choose_references(train: Sequence[_Tile], count: int) -> dict[str, Image]:
    """Return the training tiles with most px of nuclei, of different images where there are any."""
    order = sorted(train, key=lambda tile: -int((tile.labels[..., 0] > 0).sum()))
    firsts = list({tile.group: tile for tile in reversed(order)}.values())[::-1]
    rest = [tile for tile in order if tile not in firsts]
    return {
        f"reference-{number}": tile.rgb for number, tile in enumerate([*firsts, *rest][:count], 1)
    }
