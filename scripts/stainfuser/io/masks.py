"""Tissue masks as PNG files: one mask of a slide, or an atlas of the masks of an image set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.io.images import check_file, write_image

Mask = NDArray[np.bool_]

ATLAS_WIDTH_PX = 4096
_LAYOUT_KEY = "atlas_layout"


def write_mask(path: str | Path, mask: Mask, text: Mapping[str, str]) -> None:
    """Write a (H, W) bool mask as a PNG of 0 and 255, with `text` (a stamp) as text chunks."""
    write_image(path, np.where(mask, 255, 0).astype(np.uint8), text=text)


def read_mask(path: str | Path) -> Mask:
    """Read a mask as (H, W) bool."""
    return _read(path)[0]


def write_mask_atlas(path: str | Path, masks: Mapping[str, Mask], text: Mapping[str, str]) -> None:
    """Write the masks of an image set in shelves on one picture; their places are a text chunk."""
    layout = _shelve({name: mask.shape for name, mask in masks.items()})
    width_px = max((x + width for x, _, width, _ in layout.values()), default=1)
    height_px = max((y + height for _, y, _, height in layout.values()), default=1)
    atlas = np.zeros((height_px, width_px), bool)
    for name, (x, y, width, height) in layout.items():
        atlas[y : y + height, x : x + width] = masks[name]
    write_mask(path, atlas, {**text, _LAYOUT_KEY: json.dumps(layout, ensure_ascii=False)})


def read_mask_atlas(path: str | Path) -> dict[str, Mask]:
    """Read the masks of an image set by file name, in the order they were written."""
    atlas, text = _read(path)
    if _LAYOUT_KEY not in text:
        raise InputError(path, "it is not the mask of an image set", "make it again")
    places = json.loads(text[_LAYOUT_KEY])
    return {
        name: atlas[y : y + height, x : x + width] for name, (x, y, width, height) in places.items()
    }


def _read(path: str | Path) -> tuple[Mask, dict[str, str]]:
    check_file(Path(path))
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("L")) >= 128, dict(image.text)  # type: ignore[attr-defined]
    except (OSError, SyntaxError, AttributeError) as error:
        raise InputError(path, f"not a readable mask ({error})", "make it again") from None


def _shelve(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int, int, int]]:
    """Return x, y, width and height of each mask, row by row in the order given."""
    layout: dict[str, tuple[int, int, int, int]] = {}
    x = y = shelf = 0
    for name, (height, width) in shapes.items():
        if x and x + width > ATLAS_WIDTH_PX:
            x, y, shelf = 0, y + shelf, 0
        layout[name] = (x, y, width, height)
        x, shelf = x + width, max(shelf, height)
    return layout
