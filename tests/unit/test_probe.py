"""Slides that cannot be used: each gets its verdict, and none takes this process with it."""

from __future__ import annotations

import json

import numpy as np
import pytest

from slide_files import damage_tile, overwrite_tags, tissue_picture, write_tiff_slide
from stainfuser.io import probe
from stainfuser.io.probe import probe_file

LIMITS = {
    "mpp_override": None,
    "mpp_default": None,
    "overview_um_per_px": 8.0,
    "max_side_px": 1_000_000,
    "timeout_s": 60,
    "memory_mb": 8192,
}
PATIENT = "Jane Doe 1950-01-01"


@pytest.fixture(scope="module")
def picture():
    return tissue_picture(1024)


@pytest.fixture(scope="module")
def good(tmp_path_factory, picture):
    description = (
        "Aperio Image Library v11.2.1\r\n1024x1024 (256x256) JPEG/RGB Q=90"
        f"|AppMag = 20|MPP = 0.5|User = {PATIENT}|Filename = {PATIENT}|Date = 01/02/03"
    )
    path = tmp_path_factory.mktemp("good") / f"{PATIENT.split()[0]}.svs"
    return write_tiff_slide(path, picture, aperio=description)


def _probe(path, **changes):
    return probe_file(path, **{**LIMITS, **changes})


def _bad(path, verdict, **changes):
    record, overview = _probe(path, **changes)
    assert (record["verdict"], overview) == (verdict, None), record
    assert record["reason"]
    assert record["remedy"]
    assert str(path.parent) not in json.dumps(record)
    return record


def test_a_good_slide(good, picture):
    record, overview = _probe(good)
    assert record["verdict"] == "ok"
    assert (record["width_px"], record["height_px"]) == (1024, 1024)
    assert (record["mpp"], record["mpp_source"]) == (0.5, "slide")
    assert (record["vendor"], record["objective_power"]) == ("aperio", 20)
    assert record["corrupt_regions"] == []
    assert overview.shape == (64, 64, 4)
    truth = picture.reshape(64, 16, 64, 16, 3).mean(axis=(1, 3))
    assert np.abs(overview[..., :3] - truth).mean() < 4


def test_nothing_personal_is_kept(good, shared_data):
    assert "Jane" not in json.dumps(_probe(good)[0])
    record, _ = _probe(shared_data / "slides/cmu-1-small-region.svs")
    text = json.dumps(record)
    for personal in ("12/29/09", "CPAPERIOCS", "b414003d", "1004486", "CMU-1"):
        assert personal not in text


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda path, good: None, "missing"),
        (lambda path, good: path.write_bytes(b""), "empty"),
        (lambda path, good: path.mkdir(), "directory"),
        (lambda path, good: path.write_text("this is text" * 100), "not_a_slide"),
        (lambda path, good: path.write_bytes(good.read_bytes()[:-9000]), "truncated"),
        (lambda path, good: path.write_bytes(good.read_bytes()[:5000]), "truncated"),
    ],
)
def test_files_that_are_no_whole_slide(tmp_path, good, make, verdict):
    make(tmp_path / "a.svs", good)
    _bad(tmp_path / "a.svs", verdict)


@pytest.mark.parametrize("share", [0.1, 0.7, 0.999])
def test_real_slides_cut_off_anywhere(tmp_path, shared_data, share):
    for name in ("cmu-1-small-region", "tcga-cr-7395-01a-01-ts1"):
        whole = (shared_data / f"slides/{name}.svs").read_bytes()
        path = tmp_path / f"{name}.svs"
        path.write_bytes(whole[: int(len(whole) * share)])
        _bad(path, "truncated", mpp_default=0.25)


def test_a_header_that_aborts_the_library_is_a_verdict(tmp_path, good):
    """A tile side of 2^20 opens, and ends the process that reads (GLib, SIGABRT)."""
    path = tmp_path / "huge tiles.svs"
    path.write_bytes(good.read_bytes())
    overwrite_tags(path, TileWidth=2**20, TileLength=2**20)
    record = _bad(path, "unreadable", memory_mb=4096)
    assert "SIG" in record["reason"] or "MiB" in record["reason"]


def test_absurd_dimensions(tmp_path, good):
    path = tmp_path / "wide.svs"
    path.write_bytes(good.read_bytes())
    overwrite_tags(path, ImageWidth=2**31 - 1)
    record, _ = _probe(path)
    assert record["verdict"] in {"too_large", "unreadable", "truncated", "not_a_slide"}
    assert _bad(good, "too_large", max_side_px=1000)["width_px"] == 1024


@pytest.mark.parametrize("mpp", [None, 352.8, (0.5, 0.25)])
def test_no_or_absurd_resolution(tmp_path, picture, mpp):
    path = write_tiff_slide(tmp_path / "a.tif", picture, mpp=mpp)
    record = _bad(path, "no_mpp")
    assert "--config mpp=" in record["remedy"]
    assert record["width_px"] == 1024


def test_the_default_serves_slides_without_a_resolution(tmp_path, picture):
    path = write_tiff_slide(tmp_path / "a.tif", picture, mpp=352.8)
    record, overview = _probe(path, mpp_default=0.25)
    assert (record["verdict"], record["mpp"], record["mpp_source"]) == ("ok", 0.25, "default")
    assert overview.shape == (32, 32, 4)


@pytest.mark.parametrize("stated", ["-0.5", "nan", "none"])
def test_absurd_aperio_descriptions(tmp_path, picture, stated):
    description = f"Aperio Image Library v1\r\n1024x1024|AppMag = 40|MPP = {stated}"
    path = write_tiff_slide(tmp_path / "a.svs", picture, mpp=None, aperio=description)
    _bad(path, "no_mpp")


def test_an_override_wins_and_a_default_does_not(good):
    record, _ = _probe(good, mpp_override=0.25, mpp_default=1.0)
    assert (record["mpp"], record["mpp_source"]) == (0.25, "override")
    record, _ = _probe(good, mpp_default=1.0)
    assert (record["mpp"], record["mpp_source"]) == (0.5, "slide")


def test_one_damaged_region_is_noted_and_the_whole_is_unreadable(tmp_path, picture):
    path = write_tiff_slide(tmp_path / "a.tif", picture)
    damage_tile(path, 5)
    record, overview = _probe(path)
    assert record["verdict"] == "ok"
    assert record["corrupt_regions"] == [[256, 256, 256, 256, 0]]
    damaged = np.zeros((64, 64), bool)
    damaged[16:32, 16:32] = True
    assert np.array_equal(overview[..., 3] < 128, damaged)
    for index in range(16):
        damage_tile(path, index)
    _bad(path, "corrupt")


def test_a_slide_that_takes_too_long_is_a_verdict(good):
    record = _bad(good, "unreadable", timeout_s=0.05)
    assert "0.05 s" in record["reason"]


def test_too_little_memory_is_a_verdict(good):
    _bad(good, "unreadable", memory_mb=64)


def test_large_slides_without_a_pyramid_are_sampled(good, monkeypatch):
    from stainfuser.io.slides import SlideReader

    monkeypatch.setattr(probe, "_MAX_OVERVIEW_READ_PX", 1000)
    monkeypatch.setattr(probe, "_SAMPLED_WINDOWS", 4)
    with SlideReader(good) as reader:
        sampled = probe._overview(reader, 8.0)
        whole = reader.thumbnail(64)
    # Four windows of 256 px tile the slide of 1024 px exactly.
    assert np.abs(sampled[..., :3].astype(int) - whole).mean() < 2
