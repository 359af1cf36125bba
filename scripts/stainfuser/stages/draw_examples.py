"""A picture of the same tiles by every arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.evaluation_arms import ARMS, arm_named
from stainfuser.evaluation_terms import known_order
from stainfuser.io.evaluation_store import ArmStore, read_sample
from stainfuser.io.images import read_image
from stainfuser.pictures import contact_sheet, save_picture
from stainfuser.stain.tile_grid import middle_of

RgbImage = NDArray[np.uint8]

EXAMPLES, EXAMPLE_CELL_PX = 6, 192
MOST_LETTERS = 18
TITLES = {"identity": "Source", "target": "Target"}


def draw_examples(
    *,
    arm_paths: Sequence[str | Path],
    sample_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    examples_path: str | Path,
) -> None:
    """Draw a column per example tile: what every arm made of it, and a piece of the target.

    Parameters
    ----------
    arm_paths
        ``{arm}.h5`` of apply_arm.
    sample_paths, target_paths
        ``{slide}.h5`` of sample_evaluation_tiles; reference images, ``{target}.png``.
    examples_path
        PNG. The tiles are the first of each slide's sample, which is drawn at random.
    """
    stores = {Path(path).stem: ArmStore(path) for path in arm_paths}
    targets = {Path(path).stem: read_image(path) for path in target_paths}
    rows_of = {Path(path).stem: read_sample(path).rows for path in sample_paths}
    found = sorted({group for store in stores.values() for group in store.groups})
    each = max(1, EXAMPLES // max(1, len(found)))
    shown = [
        (target, slide, index)
        for target, slide in found[:: max(1, -(-len(found) // EXAMPLES))]
        for index in range(min(each, len(rows_of.get(slide, ()))))
    ]
    pictures = [_pictures(stores, targets[place[0]], place) for place in shown]
    present = {name for row in pictures for name in row}
    names = [*known_order(present - {"target"}, ARMS), *(["target"] if shown else [])]
    sheet = contact_sheet(
        [[pictures_of.get(name) for pictures_of in pictures] for name in names],
        title="The same tiles by every arm" if shown else "There is no tile to show",
        column_titles=[
            _place(slide, target, int(rows_of[slide][index]), len(targets))
            for target, slide, index in shown
        ],
        row_titles=[TITLES.get(name, _title(name)) for name in names],
        cell_px=EXAMPLE_CELL_PX,
    )
    save_picture(examples_path, sheet)


def _place(slide: str, target: str, tile: int, targets: int) -> str:
    """Return the title of a column, short enough to stand above it."""
    name = slide if len(slide) <= MOST_LETTERS else f"{slide[: MOST_LETTERS - 1]}\u2026"
    return f"{name}, {tile}" + (f" to {target}" if targets > 1 else "")


def _title(name: str) -> str:
    return arm_named(name).label.removeprefix("StainFuser ").removeprefix("StainFuser, ")


def _pictures(
    stores: dict[str, ArmStore], target_image: RgbImage, place: tuple[str, str, int]
) -> dict[str, RgbImage]:
    """Return arm → what it made of one tile, and a piece of the target."""
    target, slide, index = place
    pictures = {}
    for name, store in stores.items():
        if (target, slide) not in store.groups:
            continue
        result = store.read(target, slide)
        if index < len(result.image) and result.is_made[index]:
            pictures[name] = result.image[index]
    side_px = next((image.shape[0] for image in pictures.values()), EXAMPLE_CELL_PX)
    return {**pictures, "target": middle_of(target_image, side_px)}
