"""The whole chain on the small demo: what it makes can be opened, is right, and is made once."""

from __future__ import annotations

import json
import re

import h5py
import openslide
import pandas as pd
import pytest
from helpers_workflow import run_workflow, small_options

pytestmark = pytest.mark.workflow
SLIDES = ("cedar-1", "cedar-2", "fjord-1", "mesa-1")


def test_every_slide_is_normalised_to_a_slide_of_the_same_geometry(small_demo):
    for name in SLIDES:
        source = openslide.OpenSlide(str(small_demo.folder / f"results/demo/slides/{name}.svs"))
        path = small_demo.folder / f"results/normalized/demo/{name}.svs"
        result = openslide.OpenSlide(str(path))
        assert result.dimensions == source.dimensions
        assert result.level_count == source.level_count
        for key in ("openslide.mpp-x", "openslide.mpp-y", "openslide.objective-power"):
            assert float(result.properties[key]) == pytest.approx(float(source.properties[key]))
        assert not {"label", "macro"} & set(result.associated_images)


def test_every_slide_has_a_record_of_how_it_was_made(small_demo):
    for name in SLIDES:
        path = small_demo.folder / f"results/normalized/demo/{name}.json"
        text = path.read_text()
        record = json.loads(text)
        assert record["slide"] == name
        # The shipped model makes the slides; the demo's own is trained beside it.
        assert record["operator_from"] == "head"
        assert str(small_demo.folder) not in text


def test_pairs_are_views_of_images_stored_once(small_demo):
    with h5py.File(small_demo.folder / "results/pairs/pairs.h5") as pairs:
        targets, sources = pairs["planned"].shape
        assert pairs["source"].shape[0] == sources
        assert pairs["stylized"].shape[:2] == (targets, sources)
        target, source = _first(pairs)
        assert pairs["stylized"][target, source].std() > 1
    assert (small_demo.folder / "results/pairs/pairs.h5").stat().st_size < 5_000_000


def _first(pairs) -> tuple[int, int]:
    """Return the first planned (target, source)."""
    targets, sources = pairs["planned"][:].nonzero()
    return int(targets[0]), int(sources[0])


def test_the_model_learns(small_demo):
    losses = pd.read_csv(small_demo.folder / "results/train/losses.csv")
    for _, phase in losses.groupby("phase"):
        tenth = max(1, len(phase) // 10)
        assert phase["loss"].tail(tenth).mean() < phase["loss"].head(tenth).mean()


def test_the_summary_has_the_contracts_columns_and_methods(small_demo):
    summary = pd.read_csv(small_demo.folder / "results/evaluation/summary.csv")
    columns = ["method", "target", "metric", "value", "ci_low", "ci_high", "n"]
    assert list(summary.columns) == columns
    assert {"identity", "reinhard", "macenko"} <= set(summary["method"])
    assert {"operator", "render_10", "trained", "delivered", "truth"} <= set(summary["method"])
    finite = summary.dropna()
    assert (finite["ci_low"] <= finite["value"]).all()
    assert (finite["value"] <= finite["ci_high"]).all()


def test_an_arm_that_lacks_something_is_named_and_the_others_go_on(small_demo):
    folder = small_demo.folder / "results"
    record = json.loads((folder / "evaluation/arms/nst.json").read_text())
    assert record["state"] == "not run" and "pairs.feature_weights" in record["failure"]
    assert "NST" in (folder / "report/index.html").read_text(encoding="utf-8")
    done = [json.loads(p.read_text())["state"] for p in folder.glob("evaluation/arms/*.json")]
    assert done.count("done") == len(done) - 1 == 8


def test_every_normalised_slide_is_looked_at_whole(small_demo):
    for name in SLIDES:
        path = small_demo.folder / f"results/evaluation/consistency/demo/{name}.json"
        content = json.loads(path.read_text())
        assert content["invariance"] == {"tile_order": 0, "batch_size": 0, "repeat": 0}
        assert len(content["findings"]) == 4


def test_the_report_is_one_file_that_loads_nothing(small_demo):
    report = (small_demo.folder / "results/report/index.html").read_text(encoding="utf-8")
    sources = re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", report)
    assert [source for source in sources if not source.startswith(("data:", "#"))] == []
    for name in SLIDES:
        assert name in report
    assert str(small_demo.folder) not in report


def test_no_product_names_the_folder_it_was_made_in(small_demo):
    needle = str(small_demo.folder).encode()
    for pattern in ("**/*.h5", "**/*.svs", "**/*.json", "**/*.safetensors", "**/*.csv"):
        for path in (small_demo.folder / "results").glob(pattern):
            assert needle not in path.read_bytes(), path


def test_a_second_run_has_nothing_to_do(small_demo):
    again = run_workflow(small_demo.folder, "all", *small_options())
    assert again.status == 0
    assert "Nothing to be done" in again.text
