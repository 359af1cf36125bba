"""Pictures of what an operator head does, to be looked at before it is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from stainfuser.pictures import contact_sheet

CELL_PX = 150
# Sources are shown as windows of this side, from the middle.
WINDOW_PX = 400

Image = NDArray[np.uint8]


def stain_sheet(
    normalize: Callable[[Image, Image], Image], images: Mapping[str, Image], cell_px: int = CELL_PX
) -> Image:
    """Return every image (rows) in the stain of every image (columns); originals at the rim."""
    windows = {name: window(rgb) for name, rgb in images.items()}
    header: list[Image | None] = [None, *windows.values()]
    rows = [header]
    for source in windows.values():
        row = [source]
        row += [source if t is source else normalize(source, t) for t in windows.values()]
        rows.append(row)
    names = [name.rsplit("/", 1)[-1][:14] for name in images]
    return contact_sheet(
        rows,
        title="Rows: source. Columns: target.",
        column_titles=["source", *names],
        row_titles=["target", *names],
        cell_px=cell_px,
    )


def window(rgb: Image, side_px: int = WINDOW_PX) -> Image:
    """Return the square window of `side_px` that holds most colour among nine."""
    side_px = min(side_px, *rgb.shape[:2])
    rows, columns = (np.linspace(0, side - side_px, 3).astype(int) for side in rgb.shape[:2])
    candidates = [rgb[r : r + side_px, c : c + side_px] for r in rows for c in columns]
    chroma = [np.ptp(c[::8, ::8].astype(int), axis=-1).mean() for c in candidates]
    return candidates[int(np.argmax(chroma))]
