"""The long metric table: every method on the same tiles, failures recorded, nothing crashes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

from evaluation_files import (
    SLIDE_PX,
    Cohort,
    FailingModel,
    TrueModel,
    add_normalized,
    make_cohort,
    write_tiles,
)
from slide_files import damage_tile, tissue_picture
from stainfuser.evaluation_terms import METRICS, TABLE_COLUMNS
from stainfuser.stages import evaluate_tiles as stage

CELL_PX = 24


@pytest.fixture(scope="module", autouse=True)
def small_examples():
    """Keep the example picture small: compressing it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "EXAMPLE_CELL_PX", CELL_PX)
        yield


def run(cohort: Cohort, model: type = TrueModel, **changes) -> pd.DataFrame:
    table_path = cohort.folder / "evaluation" / "tiles.parquet"
    arguments = {
        "tiles_paths": cohort.tiles_paths,
        "normalized_paths": cohort.normalized_paths,
        "record_paths": cohort.record_paths,
        "truth_paths": cohort.truth_paths,
        "target_paths": cohort.target_paths,
        "model_dir": cohort.model_dir,
        "trained_dir": None,
        "table_path": table_path,
        "examples_path": table_path.with_name("examples.png"),
        "seed": 1,
        "tiles_per_slide": 3,
        "max_tiles": 100,
        "load_model": lambda folder, device: model(),
    }
    stage.evaluate_tiles(**{**arguments, **changes})
    return pd.read_parquet(table_path)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def table(cohort) -> pd.DataFrame:
    return run(cohort)


def test_a_model_trained_beside_is_one_more_method(cohort, table, tmp_path):
    paths = {"table_path": tmp_path / "both.parquet", "examples_path": tmp_path / "both.png"}
    run(cohort, trained_dir=cohort.model_dir, **paths)
    both = pd.read_parquet(paths["table_path"])
    trained = both[both["method"] == "trained_tile"]["value"].to_numpy()
    assert np.array_equal(trained, table[table["method"] == "stainfuser_tile"]["value"])
    assert set(both["method"]) == {*table["method"], "trained_tile"}


def test_every_method_meets_the_same_tiles_and_metrics(table):
    assert tuple(table.columns) == TABLE_COLUMNS
    methods = {"identity", "reinhard", "macenko", "stainfuser_tile", "stainfuser_operator", "truth"}
    assert set(table["method"]) == methods
    tiles = {name: set(map(tuple, part[["slide", "tile"]].values)) for name, part in by(table)}
    assert len({frozenset(found) for found in tiles.values()}) == 1
    assert len(tiles["identity"]) == 6
    for name, part in by(table):
        expected = {m.name for m in METRICS if name != "truth" or m.against != "truth"}
        assert set(part["metric"]) == expected
        assert np.isfinite(part["value"]).all()


def by(table: pd.DataFrame):
    return table.groupby("method")


def test_the_numbers_tell_truth_source_and_neither_apart(table):
    mean = table.groupby(["method", "metric"])["value"].mean().unstack()
    assert mean.loc["stainfuser_tile", "ciede2000_truth"] < 1.5  # JPEG of the truth only
    assert mean.loc["stainfuser_operator", "ciede2000_truth"] < 1.5
    assert mean.loc["identity", "ciede2000_truth"] > 5
    assert mean.loc["identity", "ssim_source"] == pytest.approx(1.0)
    style = mean["style_distance_target"]
    assert style["truth"] < 0.5 * style["identity"]


def test_the_same_call_writes_the_same_bytes(cohort, table):
    paths = [cohort.folder / "evaluation" / name for name in ("tiles.parquet", "examples.png")]
    before = [path.read_bytes() for path in paths]
    run(cohort)
    assert [path.read_bytes() for path in paths] == before


def test_the_table_carries_its_stamp(cohort, table):
    metadata = pq.read_schema(cohort.folder / "evaluation" / "tiles.parquet").metadata
    assert metadata[b"rule"] == b"evaluate_tiles" and len(metadata[b"model_sha256"]) == 64


def test_the_example_picture_has_a_row_per_tile_and_a_column_per_method(cohort, table):
    with Image.open(cohort.folder / "evaluation" / "examples.png") as picture:
        assert picture.width > 7 * CELL_PX and picture.height > 6 * CELL_PX


def test_the_cohort_limit_is_shared_evenly(cohort):
    table = run(cohort, max_tiles=4)
    assert table.groupby("slide")["tile"].nunique().tolist() == [2, 2]
    assert run(cohort, max_tiles=1).groupby("slide")["tile"].nunique().tolist() == [1, 1]


def test_two_targets_are_kept_apart(tmp_path):
    cohort = make_cohort(tmp_path, ["ä 'b\" <c>.d"], ["x", "y"], tiles=2, with_truth=False)
    table = run(cohort)
    assert set(table["target"]) == {"x", "y"}
    assert set(table["slide"]) == {"ä 'b\" <c>.d"}
    assert not table["metric"].str.endswith("_truth").any()
    assert table.groupby("target")["tile"].unique().map(tuple).nunique() == 1


def test_a_slide_with_its_own_target_meets_no_other(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], ["x", "y"], tiles=1, with_truth=False)
    cohort.normalized_paths, cohort.record_paths = cohort.normalized_paths[:1], []
    cohort.record_paths = [cohort.normalized_paths[0].with_name("one.json")]
    assert set(run(cohort)["target"]) == {"x"}


def test_an_image_set_is_measured_tile_by_tile(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=2)
    cohort.tiles_paths.append(tmp_path / "tiles" / "set.h5")
    write_tiles(cohort.tiles_paths[-1], "set", tissue_picture(SLIDE_PX, seed=7), 2)
    methods = set(run(cohort).query("slide == 'set'")["method"])
    assert methods == {"identity", "reinhard", "macenko", "stainfuser_tile"}


def test_a_model_that_fails_is_recorded_and_the_others_go_on(cohort):
    table = run(cohort, FailingModel)
    failed = table.query("method == 'stainfuser_tile'")
    assert failed["value"].isna().all() and (failed["note"] == "out of memory").all()
    assert table.query("method != 'stainfuser_tile'")["value"].notna().all()


def test_a_damaged_delivered_slide_is_recorded(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=4)
    for index in range(4):
        damage_tile(cohort.normalized_paths[0], index)
    table = run(cohort, tiles_per_slide=4)
    operator = table.query("method == 'stainfuser_operator'")
    assert operator["value"].isna().any()
    assert operator.loc[operator["value"].isna(), "note"].str.contains("damaged").all()
    assert table.query("method == 'reinhard'")["value"].notna().all()


def test_a_missing_delivered_slide_is_recorded(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=2)
    cohort.normalized_paths[0].unlink()
    operator = run(cohort).query("method == 'stainfuser_operator'")
    assert len(operator) == 2 * len(METRICS) and operator["value"].isna().all()


def test_blank_tiles_are_flagged_as_fallback(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=1, with_truth=False)
    blank = np.full((SLIDE_PX, SLIDE_PX, 3), 244, np.uint8)
    write_tiles(cohort.tiles_paths[0], "one", blank, 2)
    add_normalized(cohort, "one", "demo", blank)
    table = run(cohort)
    classical = table[table["method"].isin(["reinhard", "macenko"])]
    assert len(classical) and classical["note"].str.startswith("undefined").all()
    correlation = table.query("metric == 'gradient_correlation_source' and method == 'macenko'")
    assert (correlation["value"] == 1.0).all()


@pytest.mark.parametrize("slides", [[], ["empty"]])
def test_no_tile_at_all_gives_an_empty_but_valid_table(tmp_path, slides):
    def no_model(folder, device):
        raise AssertionError("the model is not needed")

    cohort = make_cohort(tmp_path, slides, tiles=0)
    table = run(cohort, load_model=no_model)
    assert tuple(table.columns) == TABLE_COLUMNS and len(table) == 0
    with Image.open(tmp_path / "evaluation" / "examples.png") as picture:
        assert picture.width > 100
