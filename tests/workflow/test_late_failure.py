"""A slide that fails after the probe: reported, left out by the next run, tried again on change."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import tifffile
from helpers_workflow import run_workflow

pytestmark = pytest.mark.workflow


def _damage_largest_tile(path) -> None:
    """Overwrite the compressed bytes of the tile that has most of them."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        largest = int(np.argmax(page.databytecounts))
        offset, count = page.dataoffsets[largest], page.databytecounts[largest]
    with open(path, "r+b") as handle:
        handle.seek(offset + 2)
        handle.write(bytes(count - 4))


def test_a_damaged_slide_does_not_keep_the_others_from_their_report(small_demo, tmp_path):
    demo = small_demo.folder / "results"
    (tmp_path / "slides").mkdir()
    shutil.copy(demo / "demo/slides/fjord-1.svs", tmp_path / "slides/good.svs")
    shutil.copy(demo / "demo/slides/mesa-1.svs", tmp_path / "slides/damaged.svs")
    _damage_largest_tile(tmp_path / "slides/damaged.svs")
    options = [
        "slides=slides",
        f"target={demo / 'demo/target.png'}",
        f"model={demo / 'model'}",
        "evaluate={tiles_per_slide: 2, arms: [identity, macenko, delivered]}",
    ]
    first = run_workflow(tmp_path, "all", "--config", *options)
    assert first.status != 0
    assert "left out: damaged: corrupt: " in first.text
    assert "Traceback" not in first.text
    target = tmp_path / "results/normalized/target"
    assert (target / "good.svs").exists()
    assert not (target / "damaged.svs").exists()

    second = run_workflow(tmp_path, "all", "--config", *options)
    assert second.status != 0
    assert "left out: damaged: corrupt: " in second.text
    assert "damaged" in (tmp_path / "results/report/index.html").read_text(encoding="utf-8")

    filling = [*options, "normalize={corrupt_tiles: fill}"]
    third = run_workflow(tmp_path, "normalize", "--config", *filling)
    assert third.status == 0, third.text[-3000:]
    assert (target / "damaged.svs").exists()
