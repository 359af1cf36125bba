"""Sample, apply, measure: every arm on the same tiles, failures recorded, nothing crashes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from evaluation_stages import ARMS, Evaluation
from PIL import Image

from evaluation_files import (
    SLIDE_PX,
    TILE_PX,
    FailingModel,
    add_normalized,
    make_cohort,
    write_tiles,
)
from slide_files import damage_tile, tissue_picture
from stainfuser.errors import InputError
from stainfuser.evaluation_terms import METRICS, SUMMARY_COLUMNS, TABLE_COLUMNS
from stainfuser.io.evaluation_store import ArmStore, read_sample
from stainfuser.stages import draw_examples as drawing

CELL_PX = 24


@pytest.fixture(scope="module", autouse=True)
def small_examples():
    """Keep the example picture small: compressing it would take most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "EXAMPLE_CELL_PX", CELL_PX)
        yield


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Evaluation:
    return Evaluation(make_cohort(tmp_path_factory.mktemp("cohort")))


@pytest.fixture(scope="module")
def table(evaluation) -> pd.DataFrame:
    return evaluation.run()


def metrics_of_tiles(with_truth: bool) -> set[str]:
    """Return the metrics that are measured tile by tile, by our protocol."""
    names = {m.name for m in METRICS if with_truth or m.against != "truth"}
    return {n for n in names if not n.startswith(("fd_", "fid_")) and "published" not in n}


def by(table: pd.DataFrame):
    return table.groupby("method")


def test_every_arm_meets_the_same_tiles_and_metrics(table):
    assert tuple(table.columns) == TABLE_COLUMNS
    assert set(table["method"]) == set(ARMS)
    tiles = {name: set(map(tuple, part[["slide", "tile"]].values)) for name, part in by(table)}
    assert len({frozenset(found) for found in tiles.values()}) == 1
    assert len(tiles["identity"]) == 6
    for name, part in by(table):
        assert set(part["metric"]) == metrics_of_tiles(with_truth=name != "truth")
        values = part[~part["metric"].str.contains("nucle")]["value"]
        assert np.isfinite(values).all()


def test_the_numbers_tell_truth_source_and_neither_apart(table):
    mean = table.groupby(["method", "metric"])["value"].mean().unstack()
    assert mean.loc["render_1", "ciede2000_truth"] < 1.5  # JPEG of the truth only
    assert mean.loc["delivered", "ciede2000_truth"] < 1.5
    assert mean.loc["identity", "ciede2000_truth"] > 5
    assert mean.loc["identity", "ssim_source"] == pytest.approx(1.0)
    style = mean["style_distance_target"]
    assert style["truth"] < 0.5 * style["identity"]


def test_the_same_calls_write_the_same_bytes_and_times_are_in_the_record_alone(evaluation, table):
    names = ("sample/one.h5", "arms/render_1.h5", "metrics/render_1.parquet")
    before = [(evaluation.folder / name).read_bytes() for name in names]
    evaluation.run(["render_1"])
    assert [(evaluation.folder / name).read_bytes() for name in names] == before
    record = evaluation.apply("macenko")
    assert record["state"] == "done" and record["seconds_per_megapixel"] > 0
    assert record["megapixels"] == pytest.approx(6 * TILE_PX**2 / 1e6)


def test_every_product_carries_its_stamp(evaluation, table):
    schema = pq.read_schema(evaluation.folder / "metrics" / "identity.parquet")
    assert schema.metadata[b"rule"] == b"measure_arm"
    attrs = ArmStore(evaluation.folder / "arms" / "operator.h5").attrs
    assert attrs["rule"] == "apply_arm" and len(attrs["model_sha256"]) == 64
    assert "model_sha256" not in ArmStore(evaluation.folder / "arms" / "macenko.h5").attrs
    assert read_sample(evaluation.sample_paths[0]).attrs["rule"] == "sample_evaluation_tiles"


def test_a_slow_arm_takes_the_first_tiles_of_the_same_sample(evaluation, table):
    evaluation.apply("render_50")
    slow = evaluation.measure("render_50")
    assert slow.groupby("slide")["tile"].nunique().tolist() == [2, 2]
    first = read_sample(evaluation.sample_paths[0]).rows[:2]
    assert sorted(slow.query("slide == 'one'")["tile"].unique()) == sorted(first)


def test_a_model_trained_beside_is_one_more_arm(evaluation, table):
    record = evaluation.apply("trained", trained_dir=evaluation.cohort.model_dir)
    trained = evaluation.measure("trained")["value"].to_numpy()
    assert record["state"] == "done"
    same = table[table["method"] == "render_1"]["value"].to_numpy()
    assert np.array_equal(trained, same, equal_nan=True)


@pytest.mark.parametrize(
    ("arm", "says"),
    [
        ("trained", "no model was trained beside"),
        ("nst", "pairs.feature_weights"),
        ("nst_vae", "pairs.feature_weights"),
        ("cagan_like", "no such network was trained"),
    ],
)
def test_what_an_arm_lacks_is_said_and_is_no_failure(evaluation, table, arm, says):
    record = evaluation.apply(arm)
    assert record["state"] == "not run" and says in record["failure"]
    assert ArmStore(evaluation.folder / "arms" / f"{arm}.h5").attrs["failure"] == record["failure"]
    assert len(evaluation.measure(arm)) == 0


def test_an_arm_whose_files_are_damaged_fails_by_name(evaluation, table, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"no weights")
    options = {"feature_weights": str(tmp_path / "weights.pth")}
    record = evaluation.apply("nst", style_options=options)
    assert record["state"] == "failed" and "weights" in record["failure"]


def test_the_example_picture_has_a_column_per_tile_and_a_row_per_arm(evaluation, table):
    with Image.open(evaluation.draw(ARMS)) as picture:
        assert picture.width > 6 * CELL_PX and picture.height > (len(ARMS) + 1) * CELL_PX


def test_the_cohort_limit_is_shared_evenly(evaluation, table):
    def sizes(**options) -> list[int]:
        return [len(read_sample(path)) for path in evaluation.sample(**options)]

    assert sizes(max_tiles=4) == [2, 2] and sizes(max_tiles=1) == [1, 1]
    assert sizes() == [3, 3]


def test_nuclei_are_cut_at_the_places_of_the_tiles(evaluation, table, tmp_path):
    labels = np.arange(SLIDE_PX * SLIDE_PX, dtype=np.uint32).reshape(SLIDE_PX, SLIDE_PX)
    Image.fromarray((labels % 60_000).astype(np.uint16)).save(tmp_path / "nuclei.png")
    sample = read_sample(evaluation.sample(nuclei_path=tmp_path / "nuclei.png")[0])
    x, y = sample.coords[1]
    assert np.array_equal(
        sample.nuclei[1], (labels % 60_000)[y : y + TILE_PX, x : x + TILE_PX].astype(np.int32)
    )
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(InputError, match="in colour holds no labels"):
        evaluation.sample(nuclei_path=tmp_path / "colour.png")
    evaluation.sample()


def test_two_targets_are_kept_apart(tmp_path):
    cohort = make_cohort(tmp_path, ["ä 'b\" <c>.d"], ["x", "y"], tiles=2, with_truth=False)
    table = Evaluation(cohort).run(["identity", "reinhard", "delivered"])
    assert set(table["target"]) == {"x", "y"}
    assert set(table["slide"]) == {"ä 'b\" <c>.d"}
    assert not table["metric"].str.endswith("_truth").any()
    assert table.groupby("target")["tile"].unique().map(tuple).nunique() == 1


def test_the_truth_of_one_target_is_not_held_against_another(tmp_path):
    evaluation = Evaluation(make_cohort(tmp_path, ["one"], ["x", "y"], tiles=1), "x")
    table = evaluation.run(["identity", "truth"])
    of_truth = table[table["metric"].str.endswith("_truth") | (table["method"] == "truth")]
    assert set(of_truth["target"]) == {"x"}


def test_a_slide_with_its_own_target_meets_no_other(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], ["x", "y"], tiles=1, with_truth=False)
    cohort.normalized_paths = cohort.normalized_paths[:1]
    assert set(Evaluation(cohort).run(["identity"])["target"]) == {"x"}


def test_an_image_set_has_no_delivered_slide(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=2)
    cohort.tiles_paths.append(tmp_path / "tiles" / "set.h5")
    write_tiles(cohort.tiles_paths[-1], "set", tissue_picture(SLIDE_PX, seed=7), 2)
    methods = set(Evaluation(cohort).run().query("slide == 'set'")["method"])
    assert methods == {"identity", "reinhard", "macenko", "render_1", "operator"}


def test_a_model_that_fails_is_recorded_and_the_others_go_on(tmp_path):
    evaluation = Evaluation(make_cohort(tmp_path, ["one"], tiles=2))
    table = evaluation.run(["identity", "render_1"], FailingModel)
    failed = table.query("method == 'render_1'")
    assert failed["value"].isna().all() and (failed["note"] == "out of memory").all()
    assert table.query("method != 'render_1' and metric == 'psnr_source'")["value"].notna().all()
    record = evaluation.apply("render_1", FailingModel)
    assert (record["state"], record["failure"]) == ("failed", "out of memory")
    assert record["seconds_per_megapixel"] is None


def test_a_damaged_delivered_slide_is_recorded(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=4)
    for index in range(4):
        damage_tile(cohort.normalized_paths[0], index)
    table = Evaluation(cohort).run(["identity", "delivered"], tiles_per_slide=4)
    delivered = table.query("method == 'delivered'")
    assert delivered["value"].isna().any()
    assert delivered.loc[delivered["value"].isna(), "note"].str.contains("damaged").all()
    others = table.query("method == 'identity' and metric == 'psnr_source'")
    assert others["value"].notna().all()


def test_a_missing_delivered_slide_is_recorded(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=2)
    cohort.normalized_paths[0].unlink()
    table = Evaluation(cohort).run(["delivered"])
    assert len(table) == 2 * len(metrics_of_tiles(True)) and table["value"].isna().all()


def test_blank_tiles_are_said_to_be_given_back(tmp_path):
    cohort = make_cohort(tmp_path, ["one"], tiles=1, with_truth=False)
    blank = np.full((SLIDE_PX, SLIDE_PX, 3), 244, np.uint8)
    write_tiles(cohort.tiles_paths[0], "one", blank, 2)
    add_normalized(cohort, "one", "demo", blank)
    table = Evaluation(cohort).run(["identity", "reinhard", "macenko", "vahadane", "ruifrok"])
    classical = table[table["method"] != "identity"]
    assert len(classical) and (classical["note"] == "given back as it came").all()
    untouched = table.query("method == 'identity'")
    is_defined = untouched["value"].notna()
    assert (untouched.loc[is_defined, "note"] == "").all()
    assert (untouched.loc[~is_defined, "note"] == "not defined for this tile").all()
    correlation = table.query("metric == 'gradient_correlation_source' and method == 'macenko'")
    assert (correlation["value"] == 1.0).all()


@pytest.mark.parametrize("slides", [[], ["empty"]])
def test_no_tile_at_all_gives_empty_but_valid_products(tmp_path, slides):
    evaluation = Evaluation(make_cohort(tmp_path, slides, tiles=0))
    table = evaluation.run(["identity", "macenko", "delivered", "truth"])
    assert tuple(table.columns) == TABLE_COLUMNS and len(table) == 0
    with Image.open(evaluation.draw(["identity", "macenko"])) as picture:
        assert picture.width > 100


def test_the_published_protocol_adds_its_numbers(evaluation, table):
    published = evaluation.measure("macenko", protocol="published")
    added = set(published["metric"]) - set(table["metric"])
    assert added == {"psnr_source_published", "ssim_source_published"}


def test_distances_of_distributions_put_the_truth_nearest(tmp_path):
    evaluation = Evaluation(make_cohort(tmp_path, ["one", "two"], tiles=6))
    evaluation.run(["identity", "delivered", "truth"], tiles_per_slide=6)
    evaluation.apply("render_50")
    found = evaluation.distribution(["identity", "delivered", "truth", "render_50"])
    assert tuple(found.columns) == SUMMARY_COLUMNS
    assert set(found["method"]) == {"identity", "delivered", "truth"}  # a slow arm has fewer tiles
    assert (found["n"] == 12).all()
    assert (found["ci_low"] <= found["value"]).all() and (found["value"] <= found["ci_high"]).all()
    value = found.set_index(["method", "metric"])["value"]
    assert value["delivered", "fd_stain_truth"] < 0.1 * value["identity", "fd_stain_truth"]
    assert value["truth", "fd_stain_target"] < value["identity", "fd_stain_target"]
    assert ("truth", "fd_stain_truth") not in value.index


def test_too_few_tiles_have_no_distribution(tmp_path):
    evaluation = Evaluation(make_cohort(tmp_path, ["one"], tiles=2))
    evaluation.run(["identity"])
    assert len(evaluation.distribution(["identity"])) == 0
