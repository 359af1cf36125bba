"""`snakemake audit` on the small demo: intact as it is, and telling what was done to a copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from helpers_workflow import Run, run_workflow, small_options
from PIL import Image

pytestmark = pytest.mark.workflow
SLIDE = "results/normalized/demo/cedar-1.svs"


@pytest.fixture
def copy(small_demo, tmp_path) -> Path:
    """Copy the run, so that it can be tampered with."""
    folder = tmp_path / "copy"
    left_out = shutil.ignore_patterns("work", "log", "benchmarks")
    shutil.copytree(small_demo.folder, folder, ignore=left_out, symlinks=True)
    return folder


def audit(folder: Path, *config: str) -> Run:
    options = ["--config", *config] if config else []
    return run_workflow(folder, "audit", *small_options(), *options)


def test_every_job_of_the_demo_left_a_record(small_demo):
    results = small_demo.folder / "results"
    jobs = {path.stem: path for path in (results / "provenance/jobs").rglob("*.json")}
    assert {"cedar-1", "train_normalizer", "merge_pairs", "render_report"} <= set(jobs)
    record = json.loads(jobs["train_normalizer"].read_text())
    assert {"pairs"} <= {item["name"] for item in record["inputs"]}
    assert all(item["made_by"] for item in record["inputs"])
    crate = json.loads((results / "provenance/ro-crate-metadata.json").read_text())
    named = {entity["@id"] for entity in crate["@graph"]}
    assert {"../normalized/demo/cedar-1.svs", "../model/", "../report/index.html"} <= named


def test_an_untouched_demo_is_intact(small_demo):
    audited = audit(small_demo.folder)
    assert audited.status == 0, audited.text[-4000:]
    assert "Intact: everything is as it was made, 4 normalised slides among them." in audited.text
    page = small_demo.folder / "results/provenance/audit.md"
    assert page.read_text().count("| intact |") == 4


def test_what_was_done_to_a_demo_is_named_and_the_exit_code_says_it(copy):
    slide = copy / SLIDE
    content = bytearray(slide.read_bytes())
    content[-9] ^= 1
    slide.write_bytes(bytes(content))
    weights = next((copy / "results/model").rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (copy / "results/tiles/mesa-1.h5").unlink()
    config = copy / "results/config.yaml"
    config.write_text(config.read_text().replace("tile_px: 128", "tile_px: 64"))
    audited = audit(copy)
    assert audited.status != 0
    for sentence in (
        f"altered: {SLIDE}: its bytes are not those that normalize_slide wrote",
        f"{weights.relative_to(copy / 'results/model')} is altered",
        "missing: results/tiles/mesa-1.h5: extract_tiles wrote it",
        "changed input: results/config.yaml: it has changed since accept_slides read it",
    ):
        assert sentence in audited.text
    # An audit leaves everything as it found it.
    assert not (copy / "results/tiles/mesa-1.h5").exists()
    assert "tile_px: 64" in config.read_text()


def test_a_slide_that_left_the_demo_is_known_and_another_configuration_named(copy, tmp_path):
    shutil.move(copy / SLIDE, tmp_path / "renamed.svs")
    known = audit(copy, f"audit={tmp_path / 'renamed.svs'}")
    assert known.status == 0, known.text[-4000:]
    assert f"renamed.svs: it is {SLIDE}, made by normalize_slide" in known.text
    other = audit(copy, f"audit={tmp_path / 'renamed.svs'}", "normalize={sample_tiles: 7}")
    assert other.status != 0
    assert "sample_tiles was" in other.text


def test_every_product_that_can_says_what_made_it(small_demo):
    results = small_demo.folder / "results"
    of_the_code = {"commit", "sources_sha256", "environment_sha256"}
    for path, also in (
        (SLIDE, {"model_sha256", "source_sha256", "target_sha256", "seed"}),
        ("results/normalized/demo/cedar-1.json", {"model_sha256", "mask_sha256", "rule"}),
        ("results/tiles/cedar-1.h5", {"source_sha256", "mask_sha256", "seed"}),
        ("results/masks/cedar-1.png", {"source_sha256"}),
        ("results/targets/demo.png", {"source_sha256"}),
        ("results/pairs/pairs.h5", {"sources_sha256", "targets_sha256"}),
        ("results/model/stainfuser.json", {"pairs_sha256", "seed"}),
        ("results/clusters/centroids.npz", {"inputs_sha256", "seed"}),
    ):
        missing = {"config_sha256", *of_the_code, *also} - stamp_of(small_demo.folder / path)
        assert not missing, (path, missing)
    assert (results / "provenance/jobs/summarize_evaluation.json").exists()  # tables have no room


def stamp_of(path: Path) -> set[str]:
    """Return the names of what a product says of its making."""
    if path.suffix == ".svs":
        with tifffile.TiffFile(path) as tiff:
            fields = tiff.pages[0].description.split("|")
        return {field.split(" = ")[0].removeprefix("StainFuser ") for field in fields}
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            return set(file.attrs)
    if path.suffix == ".png":
        with Image.open(path) as image:
            return set(image.info)
    if path.suffix == ".npz":
        return set(np.load(path).files)
    content = json.loads(path.read_text())
    return set(content.get("stamp", content))
