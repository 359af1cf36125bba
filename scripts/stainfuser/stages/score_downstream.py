"""Score every arm on the downstream task: mPQ+ over targets, with intervals, and figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stainfuser.downstream_figure import draw_downstream
from stainfuser.evaluation_arms import ARMS, arm_named, reference_arm
from stainfuser.evaluation_terms import known_order, paired_name
from stainfuser.files import atomic_path, read_json, write_table
from stainfuser.io.images import read_image
from stainfuser.logs import LOGGER
from stainfuser.pictures import contact_sheet, save_picture
from stainfuser.seeds import generator
from stainfuser.stain.downstream_scores import (
    GAIN,
    MEAN,
    UNSHIFTED,
    score_arm,
    undefined_scores,
)
from stainfuser.stain.panoptic_quality import COUNTS

COLUMNS = ("method", "dataset", "metric", "value", "ci_low", "ci_high", "n")
UNTOUCHED, TRAINING_STAIN = "identity", "training_stain"
TRAINING_STAIN_LABEL = "In the stain that was trained on"
CELL_PX = 420


def score_downstream(
    *,
    table_paths: Sequence[str | Path],
    record_paths: Sequence[str | Path],
    picture_paths: Sequence[str | Path],
    scores_path: str | Path,
    summary_path: str | Path,
    figure_path: str | Path,
    sheet_path: str | Path,
    seed: int,
    bootstrap_samples: int,
    confidence: float,
) -> None:
    """Merge the counts of all arms, and write their scores, a figure and a sheet of pictures.

    Parameters
    ----------
    table_paths, record_paths, picture_paths
        ``{arm}.parquet``, ``{arm}.json`` and ``{arm}.png`` of segment_arm.
    scores_path
        Parquet: all counts.
    summary_path
        CSV with `COLUMNS`; `n` is the number of tiles tested under a shift. An arm that failed
        has rows without a value and n = 0.
    figure_path, sheet_path
        PNG: mPQ+ of every arm; JPEG: what is found in a tile of each shift after every arm.
    seed, bootstrap_samples, confidence
        Of the resampling of tissue.
    """
    records = {Path(path).stem: read_json(path) for path in record_paths}
    arms = _in_order(records)
    tables = {Path(path).stem: pd.read_parquet(path) for path in table_paths}
    counts = pd.concat([tables[arm] for arm in arms], ignore_index=True)
    with atomic_path(scores_path) as partial:
        counts.to_parquet(partial, index=False)
    summary = summarize(counts, records, arms, seed, bootstrap_samples, confidence)
    write_table(summary_path, summary)
    draw_downstream(figure_path, summary, {arm: label_of(arm) for arm in arms}, confidence)
    pictures = {Path(path).stem: path for path in picture_paths}
    _draw_sheet(sheet_path, counts, [arm for arm in arms if len(tables[arm])], pictures)


def summarize(
    counts: pd.DataFrame,
    records: Mapping[str, Mapping[str, Any]],
    arms: Sequence[str],
    seed: int,
    bootstrap_samples: int,
    confidence: float,
) -> pd.DataFrame:
    """Return the summary table of `counts`, one arm after the other."""
    known = {arm: _Counts(rows) for arm, rows in counts.groupby("method", sort=False)}
    ours = reference_arm(known)
    others = {GAIN: UNTOUCHED} | ({paired_name(MEAN, ours): ours} if ours else {})
    dataset = counts["dataset"].iloc[0] if len(counts) else ""
    rows: list[tuple[object, ...]] = []
    for arm in arms:
        if arm not in known:
            LOGGER.warning("%s, %s: %s", arm, records[arm]["state"], records[arm]["failure"])
            rows += [(arm, dataset, name, *score, 0) for name, score in undefined_scores().items()]
            continue
        found = known[arm]
        scores = score_arm(
            found.values,
            {
                name: known[other].of_tiles(found.tiles)
                for name, other in others.items()
                if other in known and other != arm
            },
            found.groups,
            found.classes,
            found.shifts,
            generator(seed, "downstream", "bootstrap"),
            bootstrap_samples,
            confidence,
        )
        size = len(found.tiles) * len(set(found.shifts) - {UNSHIFTED})
        rows += [(arm, dataset, name, *score, size) for name, score in scores.items()]
    return pd.DataFrame(rows, columns=list(COLUMNS))


class _Counts:
    """The rows of one arm as an array (U, T, H, C, 4) with the names of its axes."""

    def __init__(self, rows: pd.DataFrame) -> None:
        names = {
            key: list(dict.fromkeys(rows[key])) for key in ("tile", "target", "shift", "class")
        }
        self.tiles, self.shifts, self.classes = names["tile"], names["shift"], names["class"]
        shape = [len(values) for values in names.values()]
        self.values = np.zeros((*shape, len(COUNTS)))
        places = tuple(
            rows[key].map({name: i for i, name in enumerate(values)}).to_numpy(dtype=int)
            for key, values in names.items()
        )
        self.values[places] = rows[list(COUNTS)].to_numpy()
        group_of = dict(zip(rows["tile"], rows["group"], strict=True))
        numbers = {name: i for i, name in enumerate(dict.fromkeys(group_of.values()))}
        self.groups = np.array([numbers[group_of[tile]] for tile in self.tiles], dtype=int)

    def of_tiles(self, tiles: Sequence[str]) -> NDArray[np.float64]:
        """Return the values of the tiles that a slow arm was measured on."""
        return self.values[[self.tiles.index(tile) for tile in tiles]]


def label_of(arm: str) -> str:
    """Return what an arm is called in front of people."""
    return TRAINING_STAIN_LABEL if arm == TRAINING_STAIN else arm_named(arm).label


def _in_order(records: Mapping[str, object]) -> list[str]:
    known = [arm for arm in known_order(records, ARMS) if arm != TRAINING_STAIN]
    return known + [TRAINING_STAIN] * (TRAINING_STAIN in records)


def _draw_sheet(
    path: str | Path, counts: pd.DataFrame, arms: Sequence[str], pictures: Mapping[str, str | Path]
) -> None:
    sheet = contact_sheet(
        [_tiles_of(read_image(pictures[arm])) for arm in arms],
        title="Nuclei found in one tile, under every shift, after every arm",
        column_titles=list(dict.fromkeys(counts["shift"])),
        row_titles=[label_of(arm) for arm in arms],
        cell_px=CELL_PX,
    )
    save_picture(path, sheet)


def _tiles_of(strip: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Cut a strip of square tiles, side by side."""
    return np.split(strip, strip.shape[1] // strip.shape[0], axis=1)
