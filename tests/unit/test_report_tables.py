"""The report's tables: rankings, times, and paths that stay private."""

from __future__ import annotations

import pytest

from stainfuser.files import write_json
from stainfuser.report_tables import (
    duration,
    headline,
    hide_folders,
    loss_summary,
    metric_tables,
    number,
    read_rows,
    score_summary,
    timings,
    training_outcome,
    validation_rows,
    without_folders,
)


def row(method: str, metric: str, value: object, n: int = 8, target: str = "a") -> dict[str, str]:
    texts = {"value": str(value), "ci_low": str(value), "ci_high": str(value), "n": str(n)}
    return {"method": method, "target": target, "metric": metric, **texts}


def cells(rows: list[dict[str, str]], column: int = 0) -> dict[str, object]:
    [table] = metric_tables(rows)["a"]
    return {entry.method.name: entry.cells[column] for entry in table.rows}


def test_the_best_is_the_lowest_difference_and_the_highest_correlation():
    found = cells([row("reinhard", "ciede2000_truth", 5), row("macenko", "ciede2000_truth", 4)])
    assert found["macenko"].is_best and not found["reinhard"].is_best
    name = "gradient_correlation_source"
    found = cells([row("reinhard", name, 0.9), row("macenko", name, 0.8)])
    assert found["reinhard"].is_best


def test_references_do_not_compete():
    name = "gradient_correlation_source"
    found = cells(
        [row("identity", name, 1.0), row("reinhard", name, 0.9), row("truth", name, 0.99)]
    )
    assert [method for method, cell in found.items() if cell.is_best] == ["reinhard"]


def test_a_method_that_met_fewer_tiles_cannot_win():
    rows = [row("reinhard", "ciede2000_truth", 5), row("macenko", "ciede2000_truth", 1, n=2)]
    assert cells(rows)["reinhard"].is_best


def test_metrics_won_by_changing_nothing_rank_nobody():
    found = cells([row("reinhard", "psnr_source", 20), row("identity", "psnr_source", 130)])
    assert not any(cell.is_best for cell in found.values())
    assert found["identity"].value == "identical"


def test_what_failed_or_was_not_measured_is_told_apart():
    rows = [
        row("reinhard", "ciede2000_truth", "", n=0),
        row("macenko", "ciede2000_truth", 4),
        row("macenko", "psnr_truth", 20),
    ]
    [table] = metric_tables(rows)["a"]
    found = {entry.method.name: entry.cells for entry in table.rows}
    assert found["reinhard"][0].value == "failed" and found["reinhard"][1] is None
    assert metric_tables([]) == {}


def test_numbers_have_the_digits_of_their_metric():
    [cell] = cells([row("reinhard", "ciede2000_truth", 5.678)]).values()
    assert (cell.value, cell.interval) == ("5.68", "5.68 \u2013 5.68")


def test_the_headline_is_about_delivered_slides():
    rows = [
        row("delivered", "ciede2000_truth", 3),
        row("delivered", "ciede2000_truth", 5, target="b"),
        row("identity", "ciede2000_truth", 12),
        row("macenko", "gradient_correlation_source", 0.9),
    ]
    assert headline(rows) == [("4.00 \u0394E", "Colour difference", "untouched 12.00")]
    assert headline([]) == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/someone/my slides/*.svs", "\u2026/*.svs"),
        ("~/slides/a.svs", "\u2026/a.svs"),
        ("/a.svs", "\u2026/a.svs"),
        ("no file /data/x/a.svs, check it", "no file \u2026/a.svs, check it"),
        ("slides/a.svs", "slides/a.svs"),
        ("https://example.org/x/y", "https://example.org/x/y"),
        ("24 px / 12 px", "24 px / 12 px"),
        ("", ""),
    ],
)
def test_folders_stay_private(text, shown):
    assert hide_folders(text) == shown
    assert without_folders({"a": [text, 3, None]}) == {"a": [shown, 3, None]}


def test_times_are_added_up_per_rule(tmp_path):
    content = "s\th:m:s\tmax_rss\n{}\t0:00:01\t{}\n"
    (tmp_path / "normalize_slide" / "demo").mkdir(parents=True)
    (tmp_path / "normalize_slide" / "demo" / "a.b.tsv").write_text(content.format(30, 500))
    (tmp_path / "normalize_slide" / "demo" / "c.tsv").write_text(content.format(10, "-"))
    (tmp_path / "train_normalizer.tsv").write_text(content.format(80, 900))
    first, second = timings(tmp_path)
    assert (first.rule, first.jobs, first.seconds, first.share) == ("train_normalizer", 1, 80, 1)
    assert (second.rule, second.jobs, second.seconds) == ("normalize_slide", 2, 40)
    assert (second.share, second.peak_mb) == (0.5, 500)
    assert timings(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (9.96, "10 s"),
        (59.7, "1 min 00 s"),
        (125, "2 min 05 s"),
        (12000, "3 h 20 min"),
    ],
)
def test_durations_in_words(seconds, words):
    assert duration(seconds) == words


def test_validation_and_losses_and_scores(tmp_path):
    (tmp_path / "v.json").write_text(
        '{"parts": {"held_out": {"n": 3, "trained": {"ciede2000": 2.5, "psnr": 30}}}}'
    )
    [(part, n, rows)] = validation_rows(tmp_path / "v.json")
    assert (part, n, rows) == ("held out", 3, [("After training", ["2.50", "30.0", "\u2013"])])
    assert validation_rows(None) == []
    losses = [{"phase": "a", "loss": str(value)} for value in range(20)]
    assert loss_summary(losses) == [("a", 20, "0.5", "18.5")]
    scores = [{"source": "s", "target": "1", "kept_fraction": str(value)} for value in (1, 2, 4)]
    assert score_summary(scores) == [("kept fraction", 3, "1", "2", "4")]
    assert loss_summary([]) == score_summary([]) == []


def test_numbers_that_are_none():
    assert [number(text) for text in ("1e3", "nan", "inf", "", None, "x")] == [1000.0] + [None] * 5


def test_an_absent_table_has_no_rows(tmp_path):
    assert read_rows(None) == read_rows(tmp_path / "absent.csv") == []


@pytest.mark.parametrize(
    ("saved", "after", "says"),
    [
        ("trained", 3.0, "from 4.00 to 3.00 \u0394E on 6 held-out pairs; the fine-tuned model"),
        ("untrained", 5.0, "did not improve the model (from 4.00 to 5.00"),
    ],
)
def test_fine_tuning_says_whether_it_helped(tmp_path, saved, after, says):
    arms = {"untrained": {"ciede2000": 4.0}, "trained": {"ciede2000": after}}
    parts = {
        "train": {"n": 9, **arms},
        "new_tissue": {"n": 2, **arms},
        "new_both": {"n": 4, **arms},
    }
    write_json(tmp_path / "validation.json", {"parts": parts, "saved": saved})
    [sentence] = training_outcome(tmp_path / "validation.json", [], "compact")
    assert says in sentence
    assert training_outcome(tmp_path / "validation.json", [], None) == []


def test_a_model_trained_beside_is_compared_with_the_one_at_work():
    rows = [row("trained", "ciede2000_truth", 4), row("operator", "ciede2000_truth", 3)]
    [sentence] = training_outcome(None, rows, None)
    assert "4.00" in sentence and "no better than" in sentence
    assert training_outcome(None, rows[1:], None) == []
