"""What a preview shows is what the run makes; one page shows all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from image_set_files import make_set, run_set
from normalize_files import OPTIONS, Case, ink_picture
from PIL import Image

from fake_pipe import FakePipe, recolour
from slide_files import damage_tile, tissue_picture
from stainfuser.files import read_json, write_json
from stainfuser.io.images import read_image, write_image
from stainfuser.stages.preview_slide import preview_slide
from stainfuser.stages.render_preview import render_preview
from stainfuser.stain.metrics import ciede2000_map

TILES, CELL_PX = 3, 256


def preview(case: Case, name: str = "a", pipe: FakePipe | None = None, **changes) -> np.ndarray:
    """Return the strip of a slide's preview."""
    preview_slide(
        slide="my slide",
        slide_path=case.slide_path,
        json_path=case.folder / "probe.json",
        mask_path=case.folder / "mask.png",
        target_path=case.folder / "my target.png",
        model_dir=case.folder / "model",
        strip_path=case.folder / f"{name}.jpg",
        record_path=case.folder / f"{name}.json",
        seed=1,
        normalize_options={**OPTIONS, **changes},
        tiles=TILES,
        cell_px=CELL_PX,
        load_model=lambda *_: pipe or FakePipe(),
    )
    return read_image(case.folder / f"{name}.jpg")


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return Case(tmp_path_factory.mktemp("preview"), ink_picture())


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_it_shows_slide_and_tiles_before_and_after(case, mode):
    strip = preview(case, mode=mode)
    assert strip.shape == (2 * CELL_PX, (TILES + 1) * CELL_PX, 3)
    before, after = strip[:CELL_PX], strip[CELL_PX:]
    tiles = np.s_[:, CELL_PX:]
    wanted = recolour(before[tiles], (243, 241, 243) if mode == "operator" else (255, 255, 255))
    difference = np.median(ciede2000_map(after[tiles], wanted))
    assert difference < 2.0 < np.median(ciede2000_map(after[tiles], before[tiles]))
    ink = np.s_[6:10, 30:60]  # the stroke of pen at the top left of the thumbnail
    assert np.abs(after[ink].astype(int) - before[ink]).mean() < 4
    record = read_json(case.folder / "a.json")
    assert (record["slide"], record["target"], record["mode_used"]) == (
        "my slide",
        "my target",
        mode,
    )
    assert str(case.folder) not in (case.folder / "a.json").read_text()


def test_its_colours_are_those_of_the_run(case):
    """The same sample, plan and seed: a tile of the preview is a part of the normalised slide."""
    strip = preview(case)
    case.run()
    first = np.array_split(np.array(read_json(case.record_path)["tiles"]), TILES)[0]
    parts = [case.pixels()[y : y + 256, x : x + 256] for x, y in first]
    tile = strip[CELL_PX:, CELL_PX : 2 * CELL_PX]
    inner = [np.asarray(Image.fromarray(part).resize((250, 250))) for part in parts]
    differences = [np.median(ciede2000_map(tile[3:-3, 3:-3], part)) for part in inner]
    assert min(differences) < 1.5


def test_previews_are_the_same_bytes_every_time(case):
    preview(case, "first")
    preview(case, "second")
    for ending in ("jpg", "json"):
        assert (case.folder / f"first.{ending}").read_bytes() == (
            case.folder / f"second.{ending}"
        ).read_bytes()


def test_a_damaged_slide_and_one_without_tissue_have_a_preview(tmp_path):
    damaged = Case(tmp_path, tissue_picture(1100))
    damage_tile(damaged.slide_path, 12)
    assert preview(damaged).shape[0] == 2 * CELL_PX
    (tmp_path / "blank").mkdir()
    blank = Case(tmp_path / "blank", np.full((600, 500, 3), 240, np.uint8))
    strip = preview(blank)
    assert np.abs(strip[:CELL_PX].astype(int) - strip[CELL_PX:]).max() <= 2
    assert read_json(blank.folder / "a.json")["mode_used"] == "unchanged"


@pytest.mark.parametrize("image_operator", ["per_image", "per_folder"])
def test_plain_images_are_shown_as_the_run_makes_them(tmp_path, image_operator):
    folder = make_set(
        tmp_path, **{f"{name}_png": tissue_picture(200, i) for i, name in enumerate("abcde")}
    )
    (folder / "c.png").write_bytes(b"cut off")
    preview_slide(
        slide="my tiles",
        slide_path=folder,
        json_path=tmp_path / "probe.json",
        mask_path=tmp_path / "none.png",
        target_path=tmp_path / "my target.png",
        model_dir=tmp_path / "model",
        strip_path=tmp_path / "a.jpg",
        record_path=tmp_path / "a.json",
        seed=1,
        normalize_options={**OPTIONS, "image_operator": image_operator},
        tiles=4,
        cell_px=206,
        load_model=lambda *_: FakePipe(),
    )
    run_set(tmp_path, image_operator=image_operator)
    strip = read_image(tmp_path / "a.jpg")
    assert strip.shape == (2 * 206, 5 * 206, 3)
    for column, name in enumerate("abde"):  # c cannot be read
        after = strip[206 + 3 : -3, column * 206 + 3 : column * 206 + 203]
        made = read_image(tmp_path / "out" / "my tiles" / f"{name}.png")
        assert np.median(ciede2000_map(after, made)) < 1.5
    assert read_json(tmp_path / "a.json")["mode_used"] == "operator"


def test_the_page_shows_every_slide_of_every_target_and_loads_nothing(case, tmp_path):
    preview(case)
    records = []
    for target in ("x & y", "z"):
        for slide in ("one", "<two>"):
            path = tmp_path / target / f"{slide}.json"
            record = {**read_json(case.folder / "a.json"), "slide": slide, "target": target}
            write_json(path, record)
            path.with_suffix(".jpg").write_bytes((case.folder / "a.jpg").read_bytes())
            records.append(path)
        write_image(tmp_path / f"{target}.png", tissue_picture(64))
    index = tmp_path / "index.csv"
    index.write_text("slide,verdict,reason,remedy\none,ok,,\nbad,empty,it is empty,copy it again\n")
    render_preview(
        record_paths=records,
        target_paths=[tmp_path / "x & y.png", tmp_path / "z.png"],
        index_path=index,
        page_path=tmp_path / "preview.html",
        tiles=TILES,
    )
    page = Path(tmp_path / "preview.html").read_text()
    assert page.count('class="strip"') == 4 and page.count("&lt;two&gt;</h3>") == 2
    assert "Target x &amp; y" in page and "bad: it is empty; copy it again" in page
    assert "http" not in page and str(tmp_path) not in page
