"""Scanners of the same tissue: the user's table, registration and what is measured."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stainfuser.diffusion.scanner_study import (
    COLOUR,
    SHIFT,
    available_arms,
    measure_fan,
    measure_scanners,
    phantom_regions,
    read_regions,
)
from stainfuser.errors import InputError
from stainfuser.io.scanner_table import read_scanner_table
from two_tone_tissue import DARK_PINK, ORANGE, PALE_BLUE, two_tone


def write_table(folder, rows, header="region,scanner,path"):
    path = folder / "scanners.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def images(tmp_path):
    for region in (1, 2):
        for name, stain in (("a", PALE_BLUE), ("b", DARK_PINK)):
            Image.fromarray(two_tone(region, 96, stain)).save(tmp_path / f"{region}{name}.png")
    return tmp_path


ROWS = ["1,a,1a.png", "1,b,1b.png", "2,a,2a.png", "2,b,2b.png"]


def test_a_table_is_read_relative_to_its_folder(images):
    table = read_scanner_table(write_table(images, [*ROWS, "3,a,1a.png"]))
    assert list(table) == ["1", "2"], "region 3 was seen by one scanner only"
    assert table["2"]["b"] == images / "2b.png"


@pytest.mark.parametrize(
    ("rows", "header", "said"),
    [
        (ROWS, "region,device,path", "no column 'scanner'"),
        ([*ROWS, "2,c,nowhere.png"], "region,scanner,path", "nowhere.png of region 2 is missing"),
        ([*ROWS, "1,a,2a.png"], "region,scanner,path", "two images of scanner a"),
        (ROWS[:2], "region,scanner,path", "at least 2 regions"),
    ],
)
def test_a_bad_table_is_one_sentence(images, rows, header, said):
    with pytest.raises(InputError, match=said):
        read_scanner_table(write_table(images, rows, header))


def test_a_missing_table_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no such table"):
        read_scanner_table(tmp_path / "scanners.csv")


def test_regions_of_the_table_are_normalised_and_measured_against_the_other_scanner(images):
    regions = read_regions(read_scanner_table(write_table(images, ROWS)))
    arms = {"untouched": lambda target: lambda source: source, "black": lambda t: np.zeros_like}
    rows = measure_scanners(regions, arms, "table")
    units = {row.unit for row in rows}
    assert units == {f"{r}: {s}" for r in "12" for s in ("a to b", "b to a")}
    found = {
        arm: np.mean([r.value for r in rows if (r.arm, r.metric) == (arm, COLOUR)]) for arm in arms
    }
    assert 10 < found["untouched"] < found["black"]
    assert all(row.value == pytest.approx(0, abs=0.2) for row in rows if row.metric == SHIFT)


def test_a_known_shift_is_found_and_taken_out():
    whole = {name: two_tone(4, 140, stain) for name, stain in (("a", PALE_BLUE), ("b", ORANGE))}
    other = {name: two_tone(5, 120, stain) for name, stain in (("a", PALE_BLUE), ("b", ORANGE))}
    seen = {"a": whole["a"][10:130, 10:130], "b": whole["b"][16:136, 7:127]}
    recoloured = whole["b"][10:130, 10:130]
    rows = measure_scanners(
        {"1": seen, "2": other}, {"truth": lambda t: lambda s: recoloured}, "shifted"
    )
    own = [row for row in rows if row.unit == "1: a to b"]
    shift = next(row.value for row in own if row.metric == SHIFT)
    assert shift == pytest.approx(np.hypot(6, 3), abs=0.2)
    assert next(row.value for row in own if row.metric == COLOUR) < 1.0


def test_images_that_do_not_lie_on_each_other_are_left_out(caplog):
    regions = {
        str(n): {"a": two_tone(n, 96, PALE_BLUE), "b": two_tone(20 + n, 96, ORANGE)} for n in (1, 2)
    }
    with caplog.at_level("WARNING", "stainfuser"):
        rows = measure_scanners(regions, {"same": lambda t: lambda s: s}, "other tissue")
    assert {row.arm for row in rows} == {"registration"}
    assert "do not lie on each other" in caplog.text


def test_phantom_scanners_see_one_section(monkeypatch):
    monkeypatch.setattr("stainfuser.diffusion.scanner_study.PHANTOM_REGIONS", 2)
    regions = phantom_regions(seed=1)
    rows = measure_scanners(regions, {"same": lambda t: lambda s: s}, "phantoms")
    shifts = sorted({round(row.value, 1) for row in rows if row.metric == SHIFT})
    assert shifts == pytest.approx([np.hypot(5, 3), np.hypot(8, 12), np.hypot(13, 15)], abs=0.3)


def test_arms_that_need_a_model_are_left_out_without_one():
    arms = available_arms(None, seed=1, threads=1)
    assert list(arms) == ["Untouched", "Reinhard", "Macenko", "Vahadane"]
    source, target = two_tone(1, 64, PALE_BLUE), two_tone(2, 64, DARK_PINK)
    assert np.array_equal(arms["Untouched"](target)(source), source)
    assert not np.array_equal(arms["Reinhard"](target)(source), source)


def test_protocols_are_paired_between_arms():
    rng = np.random.default_rng(0)
    mosaics = [rng.integers(60, 230, (5 * 12, 9 * 12, 3)).astype(np.uint8) for _ in range(2)]
    arms = {"same": lambda t: lambda s: s, "inverted": lambda t: lambda s: 255 - s}
    rows = measure_fan(mosaics, arms, step=24)
    units = {
        arm: [row.unit for row in rows if (row.arm, row.metric) == (arm, COLOUR)] for arm in arms
    }
    assert units["same"] == units["inverted"] and len(set(units["same"])) == 6
