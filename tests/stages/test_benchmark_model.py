"""The benchmark of a model, on images small enough for a test."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from test_train_operator_head import tissue

from stainfuser.diffusion import benchmark_data
from stainfuser.diffusion.benchmark_arms import OPERATOR, model_arms, peer_arms
from stainfuser.diffusion.benchmark_speed import speed_tile
from stainfuser.diffusion.benchmark_summary import COLUMNS
from stainfuser.errors import InputError
from stainfuser.nn.class_matcher import OperatorHeadParams
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.stages import benchmark_model as stage
from tiny_pipeline import untrained_pipeline

OPTIONS = {
    "phantom_pairs": 1,
    "pairs_per_image": 1,
    "fan_step": 30,
    "sd21_limit_s": 0,
    "bootstrap_samples": 50,
    "confidence": 0.95,
}


def whole_pipeline():
    """Return a pipeline with an untrained head and an untrained diffusion part."""
    torch.manual_seed(0)
    head = OperatorHead(OperatorHeadParams(6, (8, 8, 16), 8, 16, 1, 2, 64))
    pipe = untrained_pipeline(start="statistics")
    pipe.operator_head = head.eval().requires_grad_(False)
    pipe.register_to_config(mode="operator")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def collection(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_data, "PHANTOM_PX", 256)
    monkeypatch.setattr(benchmark_data, "WINDOW_PX", 64)
    monkeypatch.setattr(stage, "speed_tile", lambda seed=0: speed_tile(64, seed))
    rows = ["file,split,stain,licence"]
    files = {
        "a.png": ("train", "he", tissue(0, 96)),
        "b.png": ("test", "he", tissue(1)),
        "c.png": ("test", "he", tissue(2)),
        "d.png": ("test", "ihc", tissue(3, 96)),
        "fan/A.png": ("test", "he", np.tile(tissue(4, 40), (5, 9, 1))),
        "fan/B.png": ("test", "he", np.tile(tissue(5, 40), (5, 9, 1))),
    }
    (tmp_path / "images" / "fan").mkdir(parents=True)
    for name, (split, stain, rgb) in files.items():
        Image.fromarray(rgb).save(tmp_path / "images" / name)
        rows.append(f"images/{name},{split},{stain},CC0")
    (tmp_path / "split.csv").write_text("\n".join(rows) + "\n")
    whole_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path


def run(folder, **changes):
    out = folder / "out"
    paths = {
        "images_dir": folder,
        "split_path": folder / "split.csv",
        "table_path": out / "model.csv",
        "comparison_path": out / "model.md",
        "sheet_path": out / "sheet.png",
        "figure_path": out / "figure.png",
        "model": str(folder / "model"),
    }
    stage.benchmark_model(seed=1, threads=1, **(paths | OPTIONS | changes))
    return out


def test_table_comparison_sheet_and_figure_are_written(collection):
    out = run(collection)
    with open(out / "model.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == COLUMNS
    arms = {row["arm"] for row in rows}
    assert arms == {
        *("identity", "reinhard", "macenko", "vahadane"),
        *("operator_head", "render", "render+operator"),
        *("operator fitted to the truth", "operator fitted to the reference in both stains"),
        "sd21",
    }
    assert {row["metric"] for row in rows if row["arm"] == "sd21"} == {"gflop", "gflop_remembered"}
    data = {row["data"] for row in rows}
    assert {"phantoms", "tissue, matched", "tissue, mismatched", "fan"} <= data
    assert {"source x target", "held-out source x target", "speed, 512 px tile"} <= data
    assert {"degenerate, blank", "degenerate, not H&E", "degenerate, pen as target"} <= data
    assert {"target of 256 tokens", "target of 64 tokens"} <= data
    table = {(row["arm"], row["data"], row["metric"]): row for row in rows}
    # 5 H&E images, each in the stain of the 4 others.
    assert table["operator_head", "source x target", "structure"]["n"] == "20"
    assert table["identity", "held-out source x target", "structure"]["mean"] == "1.0"
    assert table["identity", "fan", "de"]["n"] == table["vahadane", "fan", "de"]["n"]
    oracle = table["operator fitted to the truth", "tissue, matched", "de"]
    assert float(oracle["mean"]) < 0.5 * float(table["identity", "tissue, matched", "de"]["mean"])
    text = (out / "model.md").read_text()
    assert text.startswith("Times: 1 threads of ") and text.count("| fan | de |") == 3
    assert "| sd21 | target of 4096 tokens | 1649 | 1328 |" in text
    assert str(collection) not in text and "| none (all H&E) |" in text
    assert Image.open(out / "sheet.png").size[0] > 5 * 112
    assert Image.open(out / "figure.png").size[0] > 300


def test_an_operator_arm_gives_the_pixels_of_the_pipeline():
    pipe, source, target = whole_pipeline(), tissue(1, 80), tissue(2, 96)
    arm = model_arms(pipe)[OPERATOR]
    for _ in range(2):
        result = arm(target)(source)
        wanted = pipe(source, target, mode="operator", output_type="np").images[0]
        assert np.array_equal(result, wanted)


def test_peers_are_fitted_to_a_target_and_leave_the_source_alone():
    source, target = tissue(1, 80), tissue(2, 96)
    before = source.copy()
    for name, arm in peer_arms().items():
        result = arm(target)(source)
        assert result.shape == source.shape and result.dtype == np.uint8
        assert np.array_equal(result, source) == (name == "identity")
    assert np.array_equal(source, before)


def test_too_few_held_out_images_are_said(collection):
    table = collection / "split.csv"
    table.write_text(table.read_text().replace("images/b.png,test", "images/b.png,train"))
    with pytest.raises(InputError, match="fewer than two"):
        run(collection)


def test_a_model_that_is_not_there_is_said(collection):
    with pytest.raises(InputError, match="no such model"):
        run(collection, model=str(collection / "nowhere"))
