"""Verdicts as records, and the table of them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from cohort_stages import Entry
from PIL import Image

from slide_files import tissue_picture, write_tiff_slide
from stainfuser.errors import InputError
from stainfuser.io.images import write_image
from stainfuser.stages.list_slides import COLUMNS, list_slides

KEYS = {
    *("slide", "file_name", "kind", "verdict", "reason", "remedy", "sha256", "stamp"),
    *("width_px", "height_px", "mpp", "mpp_source", "objective_power", "vendor", "levels"),
    *("has_icc_profile", "corrupt_regions", "tissue_fraction", "images", "left_out"),
}


@pytest.fixture(scope="module")
def picture():
    return tissue_picture(1024)


def test_a_slide_with_tissue(tmp_path, picture):
    entry = Entry(write_tiff_slide(tmp_path / "a.svs", picture), tmp_path)
    record = entry.probe()
    assert set(record) == KEYS
    assert (record["slide"], record["kind"], record["verdict"]) == (entry.name, "slide", "ok")
    assert record["tissue_fraction"] == pytest.approx(np.pi * 0.40 * 0.33, abs=0.03)
    assert len(record["sha256"]) == 64
    assert record["stamp"]["source_sha256"] == record["sha256"]
    assert str(tmp_path) not in json.dumps(record)
    before = entry.json_path.read_bytes()
    entry.probe()
    assert entry.json_path.read_bytes() == before


@pytest.mark.parametrize("colour", [(255, 255, 255), (236, 222, 232), (0, 0, 0)])
def test_a_blank_slide_has_no_tissue(tmp_path, colour):
    blank = np.full((512, 512, 3), colour, np.uint8)
    record = Entry(write_tiff_slide(tmp_path / "a.tif", blank), tmp_path).probe()
    assert record["verdict"] == "no_tissue"
    assert "0.00 % of it is tissue, expected at least 0.1 %" in record["reason"]
    assert record["width_px"] == 512


@pytest.mark.parametrize(
    ("make", "verdict"),
    [
        (lambda path: None, "missing"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_text("text"), "not_a_slide"),
    ],
)
def test_bad_slides_are_records_and_not_errors(tmp_path, make, verdict):
    make(tmp_path / "a.svs")
    record = Entry(tmp_path / "a.svs", tmp_path).probe()
    assert set(record) == KEYS
    assert record["verdict"] == verdict
    assert record["reason"]
    assert record["remedy"]


@pytest.mark.parametrize("key", ["mpp_override", "mpp_default"])
def test_an_absurd_resolution_of_the_user_is_an_error(tmp_path, key):
    with pytest.raises(InputError, match=r"expected 0\.05 to 20"):
        Entry(tmp_path / "a.svs", tmp_path).probe(**{key: 250.0})


def test_a_set_of_images(tmp_path, picture):
    folder = tmp_path / "set"
    write_image(folder / "2.png", picture[300:500, 300:560])
    write_image(folder / "1.jpg", picture[300:500, 300:560])
    (folder / "broken.png").write_bytes((folder / "2.png").read_bytes()[:500])
    (folder / "text.png").write_text("text")
    record = Entry(folder, tmp_path).probe()
    assert set(record) == KEYS
    assert (record["verdict"], record["kind"], record["mpp"]) == ("ok", "images", None)
    sizes = [(image["name"], image["width_px"], image["height_px"]) for image in record["images"]]
    assert sizes == [("1.jpg", 260, 200), ("2.png", 260, 200)]
    assert [image["name"] for image in record["left_out"]] == ["broken.png", "text.png"]
    assert Entry(folder, tmp_path).probe(mpp_default=0.25)["mpp"] == 0.25


def test_a_set_without_a_readable_image_and_a_blank_one(tmp_path):
    bad, blank = tmp_path / "bad.png", tmp_path / "blank.png"
    bad.write_text("text")
    Image.new("RGB", (64, 64), "white").save(blank)
    assert Entry(bad, tmp_path).probe()["verdict"] == "unreadable"
    assert Entry(blank, tmp_path).probe()["verdict"] == "no_tissue"
    assert Entry(tmp_path / "gone.png", tmp_path).probe()["verdict"] == "missing"


def test_the_index_lists_all(tmp_path, picture):
    good = Entry(write_tiff_slide(tmp_path / "a.svs", picture), tmp_path, "b, good")
    gone = Entry(tmp_path / "gone.svs", tmp_path, "a gone")
    images = Entry(tmp_path / "c.png", tmp_path, "c")
    write_image(images.path, picture)
    for entry in (good, gone, images):
        entry.probe()
    index = tmp_path / "index.csv"
    list_slides(json_paths=[e.json_path for e in (good, gone, images)], index_path=index)
    with open(index, encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert tuple(rows[0]) == COLUMNS
    assert [row["slide"] for row in rows] == ["a gone", "b, good", "c"]
    assert [row["verdict"] for row in rows] == ["missing", "ok", "ok"]
    assert (rows[1]["width_px"], rows[1]["mpp"], rows[0]["mpp"]) == ("1024", "0.5", "")
