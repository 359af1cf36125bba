"""The benchmark of slides runs on a small slide, with a fake model in place of the stage."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from normalize_files import OPTIONS

from stainfuser.files import read_json
from stainfuser.io.images import read_image
from stainfuser.io.masks import read_mask
from stainfuser.io.pyramid_writer import write_slide
from stainfuser.io.slides import SlideReader
from stainfuser.stages.benchmark_slides import COLUMNS, _Bench, _Slide, benchmark_slides


def darken(*, slide_path, output_path, record_path, mode, work_dir, **_) -> None:
    """Stands in for `normalize_slide` in a process of its own: tiles of 64 px differ in colour."""
    from stainfuser.files import write_json

    with SlideReader(slide_path, 0.5) as reader:
        rgb = reader.read(0, 0, *reader.size_px)
    y, x = np.mgrid[: rgb.shape[0], : rgb.shape[1]] // 64
    shift = 6 * ((x + y) % 2) if mode == "render" else 0 * x
    write_slide(
        output_path,
        rgb - np.minimum(rgb, 8 + shift[..., None]).astype(np.uint8),
        mpp=0.5,
        objective_power=20,
    )
    write_json(record_path, {"mode_used": mode, "residual": None})


def find_this_module(monkeypatch) -> None:
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")


def run(folder: Path, monkeypatch, normalize=darken, **changes) -> list[dict]:
    monkeypatch.setattr("stainfuser.diffusion.benchmark_slide.SWATCH_PX", 512)
    find_this_module(monkeypatch)
    given = {"side_px": 1024, "tissue_fraction": 0.5, "render_px": 640, "repeats": 1}
    options = {**OPTIONS, "output_tile_px": 64, "tile_px": 64, "overlap_px": 0}
    benchmark_slides(
        normalize=normalize,
        normalize_options=options,
        model_dir=folder,
        table_path=folder / "slides.csv",
        details_path=folder / "slides.json",
        figure_path=folder / "slides.png",
        work_dir=folder / "work",
        seed=1,
        threads=2,
        **{**given, **changes},
    )
    with open(folder / "slides.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("bench")
        return folder, run(folder, patch)


def test_the_table_has_every_arm(measured):
    folder, rows = measured
    assert tuple(rows[0]) == COLUMNS
    large = ["copy", "operator", "macenko", "reinhard", "macenko, plain loop"]
    expected = {(arm, "1024 px") for arm in large} | {("copy", "640 px"), ("render", "640 px")}
    assert {(row["arm"], row["slide"].split(",")[1].strip()) for row in rows} == expected
    for row in rows:
        assert float(row["mpix_per_s"]) > 0.01 and float(row["peak_rss_mb"]) > 30
        assert int(row["bytes"]) > 10_000
    details = read_json(folder / "slides.json")
    assert len(details["runs"]) == 7 and details["runs"][0]["cpu_s"] > 0
    assert read_image(folder / "slides.png").shape[1] > 800


def test_seams_are_told_from_none(measured):
    scores = {(row["arm"], "640" in row["slide"]): float(row["seam_score"]) for row in measured[1]}
    assert 0.7 < scores["copy", False] < 1.4
    assert 0.7 < scores["operator", False] < 1.4
    assert scores["render", True] > 3


def test_the_slide_is_what_was_asked_for(measured):
    folder, _ = measured
    paths = [path for path in (folder / "work").glob("*.json") if path.stem != "used"]
    record = next(read_json(path) for path in paths if read_json(path).get("width_px") == 1024)
    path = next(p for p in paths if read_json(p).get("width_px") == 1024)
    mask = read_mask(path.with_suffix(".png"))
    assert mask.mean() == pytest.approx(0.5, abs=0.02)
    with SlideReader(path.with_suffix(".svs")) as reader:
        assert reader.size_px == (1024, 1024) == (record["width_px"], record["height_px"])
        picture = reader.thumbnail(64)
    tissue = mask[::1, ::1]
    assert tissue.shape == (64, 64)
    assert picture[tissue].mean() < 225 < picture[~tissue].mean()


def broken(**_) -> None:
    raise ValueError("no model today")


def test_an_arm_that_fails_leaves_the_others(tmp_path, monkeypatch, caplog):
    find_this_module(monkeypatch)
    picture = np.full((256, 256, 3), 200, np.uint8)
    write_slide(tmp_path / "a.svs", picture, mpp=0.5, objective_power=20)
    slide = _Slide("small", 256, tmp_path / "a.svs", *[tmp_path / "none"] * 3)
    bench = _Bench(broken, OPTIONS, "model", tmp_path, 1, 1)
    bench.run("operator", slide)
    assert "operator on small failed: ValueError: no model today" in caplog.text
    assert bench.rows() == [] and "failure" in bench.details[0]
