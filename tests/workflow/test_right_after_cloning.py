"""The first thing a user does: slides and a target in, slides out, with nothing trained."""

from __future__ import annotations

import json

import openslide
import pytest
from helpers_workflow import run_workflow

from phantom_pictures import he_picture, on_glass
from slide_files import write_tiff_slide
from stainfuser.io.images import write_image

pytestmark = pytest.mark.workflow


def test_slides_and_a_target_are_all_it_needs(tmp_path):
    (tmp_path / "slides").mkdir()
    write_tiff_slide(tmp_path / "slides" / "one.tiff", on_glass(he_picture(640, "fjord"), 900))
    write_image(tmp_path / "reference.png", he_picture(512, "harbour", seed=5))
    options = ["normalize", "--config", "slides=slides", "target=reference.png"]
    run = run_workflow(tmp_path, *options)
    assert run.status == 0, run.text[-3000:]
    results = tmp_path / "results"
    assert not (results / "train").exists() and not (results / "model").exists()
    record = json.loads((results / "normalized/reference/one.json").read_text())
    assert record["operator_from"] == "head" and record["confidence"] > 0.9
    with openslide.OpenSlide(results / "normalized/reference/one.svs") as slide:
        assert slide.dimensions == (900, 900)
    again = run_workflow(tmp_path, *options)
    assert "Nothing to be done" in again.text
    # Exports asked for later are all that is made then.
    made = results / "normalized/reference/one.svs"
    before = made.stat().st_mtime_ns
    run = run_workflow(tmp_path, *options, "export={formats: [ome_tiff, dicom]}")
    assert run.status == 0, run.text[-3000:]
    assert made.stat().st_mtime_ns == before
    for export in ("ome_tiff/reference/one.ome.tif", "dicom/reference/one/level-0.dcm"):
        with openslide.OpenSlide(results / "exported" / export) as slide:
            assert slide.dimensions == (900, 900)
