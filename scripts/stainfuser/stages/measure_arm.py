"""Measure what one arm made of the evaluation tiles: against truth, source and target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from stainfuser.evaluation_terms import TABLE_COLUMNS
from stainfuser.files import atomic_path, sha256_file
from stainfuser.io.evaluation_store import ArmResult, ArmStore, EvaluationSample, read_sample
from stainfuser.io.images import read_image
from stainfuser.logs import progress
from stainfuser.stain.tile_metrics import TileMeter
from stainfuser.stamps import make_stamp

NAN = float("nan")
UNDEFINED_NOTE = "not defined for this tile"
Row = tuple[str, str, str, int, str, float, str]


def measure_arm(
    *,
    arm: str,
    images_path: str | Path,
    sample_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    table_path: str | Path,
    protocol: str,
) -> None:
    """Write the long table of one arm.

    Parameters
    ----------
    arm
        The arm's name, in the column `method`.
    images_path, sample_paths, target_paths
        What apply_arm wrote; ``{slide}.h5`` of sample_evaluation_tiles; ``{target}.png``.
    table_path
        Parquet with the columns of `evaluation_terms.TABLE_COLUMNS`: a row per tile and metric.
        Tiles without an image have NaN and a note; an arm that made nothing has no row. A metric
        that is not defined for a tile is NaN with a note of its own.
    protocol
        "own", or "published" for PSNR and SSIM as published, too.

    Raises
    ------
    InputError
        A file that cannot be read.
    """
    store = ArmStore(images_path)
    samples = {Path(path).stem: path for path in sample_paths}
    targets = {Path(path).stem: path for path in target_paths}
    meters: dict[str, TileMeter] = {}
    rows: list[Row] = []
    for target, slide in progress(store.groups, f"measuring {arm}", len(store.groups)):
        sample = read_sample(samples[slide])
        if target not in meters:
            meters[target] = TileMeter(
                read_image(targets[target]), float(sample.attrs["mpp"]), protocol
            )
        rows += _measure_slide(arm, target, sample, store.read(target, slide), meters[target])
    config = {"arm": arm, "protocol": protocol}
    stamp = make_stamp("measure_arm", config, images_sha256=sha256_file(images_path))
    _write_table(table_path, rows, stamp)


def _measure_slide(
    arm: str, target: str, sample: EvaluationSample, result: ArmResult, meter: TileMeter
) -> list[Row]:
    # The truth is not compared with itself.
    truth = None if arm == "truth" else sample.truth_of(target)
    rows: list[Row] = []
    for index, note in enumerate(result.notes):
        true_tile = None if truth is None else truth[index]
        nuclei = sample.source_nuclei[index]
        source = sample.source[index]
        if result.is_made[index]:
            values = meter.measure(result.image[index], source, true_tile, nuclei)
        else:
            values = dict.fromkeys(meter.measure(source, source, true_tile, nuclei), NAN)
        where = (arm, target, str(sample.attrs["slide"]), int(sample.rows[index]))
        rows += [(*where, name, value, note or _note_on(value)) for name, value in values.items()]
    return rows


def _note_on(value: float) -> str:
    return "" if math.isfinite(value) else UNDEFINED_NOTE


def _write_table(path: str | Path, rows: Sequence[Row], stamp: Mapping[str, str]) -> None:
    """Write the long table as Parquet with the stamp as metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"tile": pa.int64(), "value": pa.float64()}
    schema = pa.schema(
        [(name, types.get(name, pa.string())) for name in TABLE_COLUMNS], dict(stamp)
    )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(TABLE_COLUMNS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with atomic_path(path) as partial:
        pq.write_table(pa.table(arrays, schema=schema), partial)
