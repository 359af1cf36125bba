"""Segment the test tiles of the downstream task after one way to normalise, and count."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stainfuser.diffusion.arm_results import (
    outcome_of,
    stamp_arm,
    style_arguments,
)
from stainfuser.diffusion.arms import ArmNotAvailableError, Normalize, build_arm
from stainfuser.diffusion.loading import load_pipeline
from stainfuser.diffusion.segmenter_training import segment
from stainfuser.diffusion.torch_threads import torch_threads
from stainfuser.evaluation_arms import arm_named
from stainfuser.files import atomic_path, sha256_file, write_json
from stainfuser.io.downstream_store import DownstreamData, read_downstream
from stainfuser.logs import progress
from stainfuser.nn.segmenter import Segmenter, load_segmenter
from stainfuser.nucleus_pictures import outlined
from stainfuser.pictures import save_picture
from stainfuser.stain.panoptic_quality import COUNTS, panoptic_counts

Images = NDArray[np.uint8]

# The test tiles in the stain that was trained on, untouched: what a perfect normaliser would reach.
TRAINING_STAIN = "training_stain"
# Arms that do not look at the target: one answer serves all of them.
WITHOUT_TARGET = ("identity", "vae", TRAINING_STAIN)
COLUMNS = ("method", "dataset", "target", "shift", "tile", "group", "class", *COUNTS)


def segment_arm(
    *,
    arm: str,
    data_path: str | Path,
    segmenter_dir: str | Path,
    baseline_dirs: Sequence[str | Path],
    model_dir: str | Path | None,
    trained_dir: str | Path | None,
    table_path: str | Path,
    record_path: str | Path,
    picture_path: str | Path,
    seed: int,
    style_options: Mapping[str, Any],
    slow_arm_tiles: int,
    threads: int = 1,
    device: str | None = None,
    load_model: Callable[[str | Path, str | None], Any] = load_pipeline,
) -> None:
    """Write the counts of every test tile towards every reference image.

    Parameters
    ----------
    arm
        A name of `evaluation_arms.ARMS` that works on tiles, or `TRAINING_STAIN`.
    data_path, segmenter_dir
        The products of prepare_downstream and train_segmenter.
    baseline_dirs, model_dir, trained_dir
        ``baselines/{target}/{arm}``, the model that normalises, and one trained beside it; None or
        empty where the arm needs none. A baseline was trained for one target and is asked once.
    table_path
        Parquet, columns `COLUMNS`: one row per target, tile, shift and class; no row at all for an
        arm that fails.
    record_path
        JSON: state ("done", "failed", "not run") and failure, a sentence or "".
    picture_path
        PNG, a tile of each shift with what is found in it, towards the first reference.
    seed, style_options
        Of initial noise; the section `pairs`, of which the nst arms use what concerns them.
    slow_arm_tiles
        Most pieces of tissue for arms that are slow.
    threads, device, load_model
        They do not change the result (up to the arithmetic of the device).
    """
    data, network = read_downstream(data_path), load_segmenter(segmenter_dir)
    rows = _tested_rows(data, slow_arm_tiles if arm_named(arm).is_slow else None)
    options = {
        "model_dir": model_dir,
        "trained_dir": trained_dir,
        "baseline_dirs": {Path(path).name: path for path in baseline_dirs},
        **style_arguments(style_options),
        "seed": seed,
        "threads": threads,
        "device": device,
        "load_model": load_model,
    }
    table, picture = pd.DataFrame(columns=list(COLUMNS)), np.full((64, 64, 3), 255, np.uint8)
    with torch_threads(threads), outcome_of(arm) as outcome:
        table, picture = _counted(arm, data, network, rows, options)
    models = {"model": model_dir, "trained": trained_dir}
    stamp = stamp_arm(
        "segment_arm", arm, seed, slow_arm_tiles, style_options, models, baseline_dirs
    )
    stamp["data_sha256"] = sha256_file(data_path)
    _write_table(table_path, table, stamp)
    write_json(record_path, {"arm": arm, **asdict(outcome), **stamp})
    save_picture(picture_path, picture)


def _tested_rows(data: DownstreamData, most_tiles: int | None) -> NDArray[np.int64]:
    """Return the rows of the first pieces of tissue, under every shift."""
    names = list(dict.fromkeys(data.test_tile))[:most_tiles]
    return np.array([row for row, name in enumerate(data.test_tile) if name in names])


def _counted(
    arm: str,
    data: DownstreamData,
    network: Segmenter,
    rows: NDArray[np.int64],
    options: Mapping[str, Any],
) -> tuple[pd.DataFrame, Images]:
    """Return the table of an arm and its picture, towards the first reference."""
    table: list[tuple] = []
    picture: Images | None = None
    for target, images in _results(arm, data, rows, options):
        found = segment(network, images)
        for row, labels in zip(rows, found, strict=True):
            counts = panoptic_counts(data.test_labels[row], labels, len(data.classes))
            place = (data.test_shift[row], data.test_tile[row], data.test_group[row])
            table += [
                (arm, data.dataset, target, *place, name, *values)
                for name, values in zip(data.classes, counts.tolist(), strict=True)
            ]
        picture = _strip(data, rows, images, found) if picture is None else picture
    if arm in WITHOUT_TARGET:
        table = [(*row[:2], target, *row[3:]) for target in data.references for row in table]
    assert picture is not None, "a data set has references"
    return pd.DataFrame(table, columns=list(COLUMNS)), picture


def _results(
    arm: str, data: DownstreamData, rows: NDArray[np.int64], options: Mapping[str, Any]
) -> Iterator[tuple[str, Images]]:
    """Yield target and (M, S, S, 3) results; the first target alone where targets do not matter."""
    references = list(data.references.items())
    if arm in WITHOUT_TARGET:
        references = references[:1]
    for name, image in progress(references, f"{arm}: references"):
        if arm == TRAINING_STAIN:
            if data.test_original is None:
                wrong = "the test images are not known in the stain that was trained on"
                raise ArmNotAvailableError(f"arm {arm}", wrong, "use phantoms or downstream.shifts")
            yield name, data.test_original[rows]
            continue
        normalize: Normalize = build_arm(arm, image, **options)
        yield name, normalize(data.test_images[rows])


def _strip(
    data: DownstreamData, rows: NDArray[np.int64], images: Images, found: NDArray[np.int32]
) -> Images:
    """Return a tile of each shift side by side, with outlines."""
    shifts = [data.test_shift[row] for row in rows]
    first = [shifts.index(name) for name in dict.fromkeys(shifts)]
    return np.concatenate([outlined(images[index], found[index]) for index in first], axis=1)


def _write_table(path: str | Path, table: pd.DataFrame, stamp: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: pa.string() for name in COLUMNS if name not in COUNTS}
    schema = pa.schema([(name, texts.get(name, pa.float64())) for name in COLUMNS])
    rows = pa.Table.from_pandas(table, schema=schema, preserve_index=False)
    with atomic_path(path) as partial:
        pq.write_table(rows.replace_schema_metadata(dict(stamp)), partial)
