"""Pictures of what an operator head does, to be looked at before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np

from stainfuser.diffusion.benchmark_arms import Arm, Image
from stainfuser.pictures import contact_sheet

CELL_PX = 150
# Sources are shown as windows of this side, from the middle.
WINDOW_PX = 400


def stain_sheet(arm: Arm, images: Mapping[str, Image], cell_px: int = CELL_PX) -> Image:
    """Return every image (rows) in the stain of every image (columns); originals at the rim."""
    windows = {name: window(rgb) for name, rgb in images.items()}
    results = {}
    for target_name, target in windows.items():
        normalize = arm(target)
        for source_name, source in windows.items():
            if source_name != target_name:
                results[source_name, target_name] = normalize(source)
    return lay_out(windows, results, cell_px)


def lay_out(
    windows: Mapping[str, Image],
    results: Mapping[tuple[str, str], Image],
    cell_px: int = CELL_PX,
) -> Image:
    """Return the sheet of `results`, (source, target) → image; same with same shows the source."""
    rows: list[list[Image | None]] = [[None, *windows.values()]]
    for source in windows:
        row = [results.get((source, target), windows[source]) for target in windows]
        rows.append([windows[source], *row])
    paths = [PurePosixPath(name) for name in windows]
    return contact_sheet(
        rows,
        title="Rows: source. Columns: target.",
        column_titles=["source", *(path.stem[: cell_px // 8] for path in paths)],
        row_titles=["target", *(f"{path.stem[:24]}\n{path.parent.name}" for path in paths)],
        cell_px=cell_px,
    )


def window(rgb: Image, side_px: int = WINDOW_PX) -> Image:
    """Return the square window of `side_px` that holds most colour among nine."""
    side_px = min(side_px, *rgb.shape[:2])
    rows, columns = (np.linspace(0, side - side_px, 3).astype(int) for side in rgb.shape[:2])
    candidates = [rgb[r : r + side_px, c : c + side_px] for r in rows for c in columns]
    chroma = [np.ptp(c[::8, ::8].astype(int), axis=-1).mean() for c in candidates]
    return candidates[int(np.argmax(chroma))]
