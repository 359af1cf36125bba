"""The summary: the contract's columns, means that add up, a figure of reproducible bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stainfuser.evaluation_terms import ALL_TARGETS, METRICS, SUMMARY_COLUMNS, TABLE_COLUMNS
from stainfuser.stages.summarize_evaluation import summarize_evaluation


def write_table(folder: Path, rows: list[tuple]) -> Path:
    """Write the rows as one table per method into a folder that is returned."""
    tables = folder / "metrics"
    tables.mkdir()
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    for method in {row[0] for row in rows} or {"none"}:
        table[table["method"] == method].to_parquet(tables / f"{method}.parquet")
    return tables


def write_distribution(folder: Path, *rows: tuple) -> Path:
    path = folder.with_name("distribution.csv")
    if rows or not path.exists():
        pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)).to_csv(path, index=False)
    return path


def measured(summary: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are means of metrics, without differences."""
    return summary[~summary["metric"].str.contains("_minus_")]


def some_rows(targets=("a",), methods=("identity", "operator")) -> list[tuple]:
    rng = np.random.default_rng(0)
    return [
        (method, target, slide, tile, metric.name, float(rng.normal(5, 1)), "")
        for target in targets
        for method in methods
        for slide in ("s", "t")
        for tile in range(5)
        for metric in METRICS
    ]


def run(table_path: Path, **changes) -> pd.DataFrame:
    options = {"seed": 1, "bootstrap_samples": 200, "confidence": 0.95, **changes}
    summary_path = table_path.with_name("summary.csv")
    figure_path = table_path.with_name("overview.png")
    summarize_evaluation(
        table_paths=sorted(table_path.glob("*.parquet")),
        distribution_path=write_distribution(table_path),
        summary_path=summary_path,
        figure_path=figure_path,
        **options,
    )
    return pd.read_csv(summary_path)


def test_means_intervals_and_counts(tmp_path):
    rows = some_rows(("b", "a"))
    summary = run(write_table(tmp_path, rows))
    assert tuple(summary.columns) == SUMMARY_COLUMNS
    of_target = measured(summary[summary["target"] != ALL_TARGETS])
    assert len(of_target) == 2 * 2 * len(METRICS) and (of_target["n"] == 10).all()
    assert (summary["ci_low"] <= summary["value"]).all()
    assert (summary["value"] <= summary["ci_high"]).all()
    table = pd.DataFrame(rows, columns=list(TABLE_COLUMNS))
    mean = table.groupby(["method", "target", "metric"])["value"].mean()
    for row in of_target.itertuples():
        assert row.value == pytest.approx(mean[row.method, row.target, row.metric], rel=1e-5)


def test_what_could_not_be_measured_is_counted_out(tmp_path):
    rows = some_rows()
    failed = [
        (*row[:5], float("nan"), "out of memory") if row[0] == "operator" else row for row in rows
    ]
    summary = run(write_table(tmp_path, failed)).set_index("method")
    assert (summary.loc["operator", "n"] == 0).all()
    assert summary.loc["operator", "value"].isna().all()
    assert (measured(summary).loc["identity", "n"] == 10).all()
    assert (summary[summary["metric"].str.contains("_minus_")]["n"] == 0).all()


def test_a_method_that_was_never_tried_has_no_row(tmp_path):
    rows = [row for row in some_rows() if not (row[0] == "identity" and "truth" in row[4])]
    summary = run(write_table(tmp_path, rows))
    of_identity = measured(summary).query("method == 'identity'")["metric"]
    assert not of_identity.str.contains("_truth").any()
    assert len(of_identity) == sum(m.against != "truth" for m in METRICS)


def test_unknown_methods_and_metrics_come_last_and_do_not_crash(tmp_path):
    rows = some_rows(methods=("zebra", "identity"))
    summary = run(write_table(tmp_path, rows))
    assert summary["method"].unique().tolist() == ["identity", "zebra"]


def test_an_empty_table_gives_an_empty_summary_and_a_figure(tmp_path):
    summary = run(write_table(tmp_path, []))
    assert tuple(summary.columns) == SUMMARY_COLUMNS and len(summary) == 0
    with Image.open(tmp_path / "overview.png") as picture:
        assert picture.width > 500


def test_the_same_call_writes_the_same_bytes_without_software_or_date(tmp_path):
    table_path = write_table(tmp_path, some_rows())
    products = [tmp_path / "summary.csv", tmp_path / "overview.png"]
    run(table_path)
    before = [path.read_bytes() for path in products]
    run(table_path)
    assert [path.read_bytes() for path in products] == before
    with Image.open(tmp_path / "overview.png") as picture:
        assert not {"Software", "Creation Time", "date"} & set(picture.info)


def test_another_seed_moves_the_intervals_and_not_the_means(tmp_path):
    table_path = write_table(tmp_path, some_rows())
    first, second = run(table_path), run(table_path, seed=2)
    assert first["value"].equals(second["value"])
    assert not first["ci_low"].equals(second["ci_low"])


def test_arms_are_compared_with_ours_on_the_tiles_of_both(tmp_path):
    name, slow = "ciede2000_truth", []
    for slide in ("s", "t"):
        for tile in range(5):
            slow.append(("delivered", "a", slide, tile, name, 3.0 + tile, ""))
            slow.append(("reinhard", "a", slide, tile, name, 3.5 + tile, ""))
            if tile < 2:
                slow.append(("render_50", "a", slide, tile, name, 2.0 + tile, ""))
    summary = run(write_table(tmp_path, slow)).set_index(["method", "metric"])
    paired = summary.loc[("render_50", f"{name}_minus_delivered")]
    # On its own four tiles it is one better; the means alone would say two and a half.
    assert (paired["value"], paired["n"]) == (-1.0, 4)
    assert summary.loc[("reinhard", f"{name}_minus_delivered"), "ci_low"] == 0.5
    assert summary.loc[("delivered", name), "value"] - summary.loc[("render_50", name), "value"] > 2
    assert ("delivered", f"{name}_minus_delivered") not in summary.index


def test_several_targets_are_pooled_too(tmp_path):
    summary = run(write_table(tmp_path, some_rows(("b", "a"))))
    pooled = measured(summary[summary["target"] == ALL_TARGETS])
    assert len(pooled) == 2 * len(METRICS) and (pooled["n"] == 20).all()
    assert summary["target"].unique().tolist() == ["a", "b", ALL_TARGETS]
    (tmp_path / "one").mkdir()
    alone = run(write_table(tmp_path / "one", some_rows(("a",))))
    assert ALL_TARGETS not in set(alone["target"])


def test_rows_of_the_distribution_are_taken_over_in_their_place(tmp_path):
    row = ("identity", "a", "fd_stain_truth", 0.5, 0.4, 0.6, 10)
    table_path = write_table(tmp_path, [r for r in some_rows() if not r[4].startswith("fd_")])
    write_distribution(table_path, row)
    summary = run(table_path)
    summary = summary[summary["method"] == "identity"]
    assert summary[summary["metric"] == "fd_stain_truth"]["value"].item() == 0.5
    names = measured(summary)["metric"].tolist()
    assert names.index("fd_stain_truth") < names.index("gradient_correlation_source")


def test_what_is_counted_out_is_named_in_the_log(tmp_path, caplog):
    rows = some_rows()
    rows[0] = (*rows[0][:5], float("nan"), "not defined for this tile")
    with caplog.at_level("WARNING", logger="stainfuser"):
        run(write_table(tmp_path, rows))
    assert f"identity, {rows[0][4]}: 1 of 10 tiles: not defined" in caplog.text
