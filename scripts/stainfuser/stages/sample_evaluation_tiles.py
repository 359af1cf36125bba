"""Choose the tiles of one slide that every arm is measured on, and what is known of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import StainFuserError
from stainfuser.io.evaluation_store import EvaluationSample, write_sample
from stainfuser.io.label_images import read_labels
from stainfuser.io.slides import SlideReader
from stainfuser.io.tile_store import TileReader
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.nucleus_segmentation import segment_nuclei
from stainfuser.stamps import make_stamp

Images = NDArray[np.uint8]


def sample_evaluation_tiles(
    *,
    slide: str,
    tiles_path: str | Path,
    truth_path: str | Path | None,
    nuclei_path: str | Path | None,
    truth_target: str,
    sample_path: str | Path,
    seed: int,
    slides: int,
    tiles_per_slide: int,
    max_tiles: int,
) -> None:
    """Draw tiles and write them with what is known of them.

    Parameters
    ----------
    slide
        The slide's name.
    tiles_path
        Its tile store.
    truth_path, nuclei_path, truth_target
        The same tissue in the stain of the target called `truth_target`, and the instance labels
        of its nuclei (PNG, px of level 0), or None.
    sample_path
        HDF5, see `io.evaluation_store`.
    seed
        Draws the tiles.
    slides, tiles_per_slide, max_tiles
        Number of slides of the cohort, most tiles of a slide, and of all slides together (every
        slide keeps at least one).

    A slide without tissue tiles gets an empty sample. A truth that cannot be read is left out, and
    a warning says so.

    Raises
    ------
    InputError
        The tile store or the labels cannot be read.
    """
    most = max(1, min(tiles_per_slide, max_tiles // max(1, slides)))
    with TileReader(tiles_path) as reader:
        rows = generator(seed, "evaluate", slide).permutation(len(reader))[:most]
        attributes, coords = reader.attrs, reader.coords[rows]
        source = reader.read(rows)
    if not len(rows):
        LOGGER.warning("%s has no tissue tile: it is not evaluated.", slide)
    size_px, mpp = int(attributes["tile_px"]), float(attributes["mpp"])
    truth = _read_truth(truth_path, coords, size_px, mpp) if truth_path else None
    side_px = int(attributes["level0_tile_px"])
    nuclei = _cut_labels(nuclei_path, coords, side_px, size_px) if nuclei_path else None
    config = {"seed": seed, "tiles_per_slide": tiles_per_slide, "max_tiles": max_tiles}
    origin = str(attributes.get("source_sha256", ""))
    stamp = make_stamp("sample_evaluation_tiles", config, source_sha256=origin)
    attrs = {
        "slide": slide,
        "mpp": mpp,
        "level0_tile_px": side_px,
        "truth_target": truth_target if truth is not None else "",
        **stamp,
    }
    found = np.zeros(source.shape[:3], np.int32)
    for index, tile in enumerate(source):
        found[index] = segment_nuclei(tile, mpp)
    rows = rows.astype(np.int64)
    write_sample(sample_path, EvaluationSample(source, coords, rows, truth, nuclei, found, attrs))


def _read_truth(
    path: str | Path, coords: NDArray[np.int64], size_px: int, mpp: float
) -> Images | None:
    try:
        with SlideReader(path) as reader:
            tiles = [reader.read_at_mpp(int(x), int(y), size_px, mpp) for x, y in coords]
    except (StainFuserError, OSError) as error:
        LOGGER.warning("The truth is left out: %s", error)
        return None
    return np.stack(tiles) if tiles else np.zeros((0, size_px, size_px, 3), np.uint8)


def _cut_labels(
    path: str | Path, coords: NDArray[np.int64], side_px: int, size_px: int
) -> NDArray[np.int32]:
    """Return the labels of each tile, (N, S, S); nearest neighbours where the scales differ."""
    labels = read_labels(path)
    place = (np.arange(size_px) + 0.5) * side_px / size_px
    out = np.zeros((len(coords), size_px, size_px), np.int32)
    for index, (x, y) in enumerate(coords):
        rows, columns = (np.floor(start + place).astype(int) for start in (y, x))
        inside = np.ix_(rows < labels.shape[0], columns < labels.shape[1])
        cut = labels[np.ix_(rows[rows < labels.shape[0]], columns[columns < labels.shape[1]])]
        out[index][inside] = cut
    return out
