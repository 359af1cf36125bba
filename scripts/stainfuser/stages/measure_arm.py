"""Measure what one arm made of the evaluation tiles: against truth, source and target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from stainfuser.evaluation_terms import METRICS, TABLE_COLUMNS
from stainfuser.files import atomic_path, sha256_file
from stainfuser.io.evaluation_store import ArmResult, ArmStore, EvaluationSample, read_sample
from stainfuser.io.images import read_image
from stainfuser.logs import progress
from stainfuser.stain.metrics import measure_tile
from stainfuser.stain.style_distance import StyleReference
from stainfuser.stamps import make_stamp

Row = tuple[str, str, str, int, str, float, str]


def measure_arm(
    *,
    arm: str,
    images_path: str | Path,
    sample_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    table_path: str | Path,
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
        Tiles without an image have NaN and a note; an arm that made nothing has no row.

    Raises
    ------
    InputError
        A file that cannot be read.
    """
    store = ArmStore(images_path)
    samples = {Path(path).stem: path for path in sample_paths}
    targets = {Path(path).stem: path for path in target_paths}
    styles: dict[str, StyleReference] = {}
    rows: list[Row] = []
    for target, slide in progress(store.groups, f"measuring {arm}", len(store.groups)):
        if target not in styles:
            styles[target] = StyleReference(read_image(targets[target]))
        sample = read_sample(samples[slide])
        rows += _measure_slide(arm, target, sample, store.read(target, slide), styles[target])
    stamp = make_stamp("measure_arm", {"arm": arm}, images_sha256=sha256_file(images_path))
    _write_table(table_path, rows, stamp)


def _measure_slide(
    arm: str, target: str, sample: EvaluationSample, result: ArmResult, style: StyleReference
) -> list[Row]:
    # The truth is not compared with itself.
    truth = None if arm == "truth" else sample.truth_of(target)
    slide = str(sample.attrs["slide"])
    rows: list[Row] = []
    for index in range(len(result.image)):
        true_tile = None if truth is None else truth[index]
        if result.is_made[index]:
            values = measure_tile(result.image[index], sample.source[index], true_tile, style)
        else:
            names = [m.name for m in METRICS if m.against != "truth" or true_tile is not None]
            values = dict.fromkeys(names, float("nan"))
        where = (arm, target, slide, int(sample.rows[index]))
        rows += [(*where, name, value, result.notes[index]) for name, value in values.items()]
    return rows


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
