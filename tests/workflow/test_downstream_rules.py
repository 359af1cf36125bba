"""The downstream task by the workflow: phantoms, and a data set given by its folder."""

from __future__ import annotations

import csv

import pytest
from helpers_workflow import run_workflow, small_options

pytestmark = pytest.mark.workflow

ARMS = "evaluate={arms: [identity, reinhard, nst], bootstrap_samples: 20}"


def test_every_arm_is_scored_or_named(tmp_path):
    run = run_workflow(tmp_path, *small_options(), "--config", ARMS, "--", "downstream")
    assert run.status == 0, run.text
    folder = tmp_path / "results/evaluation/downstream"
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [*dict.fromkeys(row["method"] for row in rows)] == [
        "identity",
        "reinhard",
        "nst",
        "training_stain",
    ]
    assert {row["n"] for row in rows if row["method"] == "reinhard"} == {"6"}
    assert {row["n"] for row in rows if row["method"] == "nst"} == {"0"}
    assert "nst, not run" in run.text
    for name in ("overview.png", "segmentations.jpg", "segmenter/samples.png", "scores.parquet"):
        assert (folder / name).stat().st_size > 0


def test_a_folder_that_is_none_is_one_sentence(tmp_path):
    run = run_workflow(tmp_path, "--config", "downstream={dataset: nowhere}", "--", "downstream")
    assert run.status != 0
    assert "downstream.dataset: there is no folder nowhere" in run.text
    assert "Traceback" not in run.text
