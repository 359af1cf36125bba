"""The report: one file that loads nothing, shows everything there is and survives what is not."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from evaluation_files import Cohort, make_cohort
from slide_files import tissue_picture
from stainfuser.files import read_json, write_json
from stainfuser.io.images import write_image
from stainfuser.stages import render_report as stage

NASTY = "a 'b\" <script>alert(1)</script> & Zürich"
FIELDS = "slide,kind,verdict,reason,remedy,width_px,height_px,mpp,sha256"


class Page(html.parser.HTMLParser):
    """What a browser would make of the file, as far as the tests ask."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.open, self.words = text, [], [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]

    def says(self, words: str) -> bool:
        return words in " ".join(" ".join(self.words).split())


def write_index(folder: Path, slides: list[str], *bad: tuple[str, str, str, str]) -> Path:
    path = folder / "slides" / "index.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as handle:
        table = csv.writer(handle)
        table.writerow(FIELDS.split(","))
        table.writerows([name, "slide", "ok", "", "", 512, 512, 0.5, ""] for name in slides)
        table.writerows([name, "slide", *words, "", "", "", ""] for name, *words in bad)
    return path


def arguments(cohort: Cohort, slides: list[str]) -> dict:
    """Return the arguments of a report without training and evaluation."""
    folder = cohort.folder
    config = folder / "config.yaml"
    settings = {"slides": f"{folder}/*.svs", "target": "demo", "model": "train", "seed": 1}
    config.write_text(yaml.safe_dump(settings))
    return {
        "config_path": config,
        "index_path": write_index(folder, slides),
        "failed_dir": folder / "slides" / "failed",
        "record_paths": cohort.record_paths,
        "normalized_paths": cohort.normalized_paths,
        "slide_paths": cohort.slide_paths,
        "overlay_paths": [],
        "target_paths": cohort.target_paths,
        "montage_paths": [],
        "sheet_paths": [],
        "scores_path": None,
        "losses_path": None,
        "training_pictures": [],
        "validation_path": None,
        "summary_path": None,
        "evaluation_pictures": [],
        "arm_record_paths": [],
        "consistency_paths": [],
        "downstream_path": None,
        "benchmarks_dir": folder / "benchmarks",
        "report_path": folder / "report" / "index.html",
        "thumbnail_px": 128,
        "max_slides": 24,
    }


def render(options: dict) -> Page:
    stage.render_report(**options)
    return Page(Path(options["report_path"]).read_text(encoding="utf-8"))


@pytest.fixture(scope="module", autouse=True)
def few_small_crops():
    """Keep the crops small: nothing here depends on their size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "DETAIL_PX", 96)
        yield


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("cohort"), [NASTY.replace("/", "_"), "two"], tiles=1)


@pytest.fixture
def options(cohort) -> dict:
    return arguments(cohort, sorted(cohort.slide_paths))


def add_everything(options: dict, folder: Path) -> None:
    """Add what training and evaluation leave behind."""
    picture = tissue_picture(64)
    names = ("tissue_montage", "stain_montage", "t000", "t001", "curves", "samples", "overview")
    paths = {name: folder / f"{name}.png" for name in (*names, "examples")}
    for path in paths.values():
        write_image(path, picture)
    (folder / "losses.csv").write_text("phase,step,loss,learning_rate\nunet,1,0.5,1e-3\n")
    (folder / "scores.csv").write_text("source,target,gradient_correlation\ns,t,0.987\n")
    arms = {"identity": {"ciede2000": 9.1, "psnr": 20, "gradient_correlation": 1}}
    write_json(folder / "validation.json", {"parts": {"held_out": {"n": 7, **arms}}})
    (folder / "summary.csv").write_text(
        "method,target,metric,value,ci_low,ci_high,n\n"
        "identity,demo,ciede2000_truth,12.3,11,13,8\n"
        "delivered,demo,ciede2000_truth,2.34,2,3,8\n"
        "delivered,demo,gradient_correlation_source,0.991,0.99,0.995,8\n"
    )
    (folder / "benchmarks").mkdir(exist_ok=True)
    (folder / "benchmarks" / "train_normalizer.tsv").write_text("s\tmax_rss\n130\t900\n")
    options |= {
        "montage_paths": [paths["tissue_montage"], paths["stain_montage"]],
        "sheet_paths": [paths["t000"], paths["t001"]],
        "scores_path": folder / "scores.csv",
        "losses_path": folder / "losses.csv",
        "training_pictures": [paths["curves"], paths["samples"]],
        "validation_path": folder / "validation.json",
        "summary_path": folder / "summary.csv",
        "evaluation_pictures": [paths["overview"], paths["examples"]],
        "benchmarks_dir": folder / "benchmarks",
    }


def test_the_report_is_well_formed_and_loads_nothing(options, tmp_path):
    add_everything(options, tmp_path)
    page = render(options)
    assert page.open == []
    sources = [a.get("src") or a.get("href") for _, a in page.tags if "src" in a or "href" in a]
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"url\((?!data:)|@import|https?://", page.text)
    anchors = {link["href"][1:] for link in page.all("a")}
    assert anchors <= {attributes.get("id") for _, attributes in page.tags}


def test_every_picture_has_a_text_and_every_slider_a_name(options, tmp_path):
    add_everything(options, tmp_path)
    page = render(options)
    assert all(picture["alt"] for picture in page.all("img"))
    sliders = page.all("input")
    assert len(sliders) == 4 and all(slider["aria-label"] for slider in sliders)


def test_the_numbers_are_there(options, tmp_path):
    add_everything(options, tmp_path)
    page = render(options)
    for words in (
        "2.34 \u0394E",
        "12.30",
        "0.991",
        "2 min 10 s",
        "900 MB",
        "9.10",
        "0.987",
    ):
        assert page.says(words), words


def test_names_are_text_and_never_markup(options):
    name = sorted(options["slide_paths"])[0]
    page = render(options)
    assert page.says(name)
    assert len(page.all("script")) == 1 and "alert(1)</script>" not in page.text


def test_no_folder_of_the_machine_is_named(options, cohort):
    page = render(options)
    assert str(cohort.folder) not in page.text
    assert "\u2026/*.svs" in page.text


def test_the_same_products_give_the_same_bytes(options):
    assert render(options).text == render(options).text


def test_missing_parts_leave_a_sentence(options):
    page = render(options)
    assert page.says("No tile could be evaluated")
    assert page.says("There are no benchmark files")
    assert page.says("This run left no record of a training")
    assert page.says("Every slide could be used")


def test_a_model_from_elsewhere_is_named_without_its_folder(options):
    Path(options["config_path"]).write_text("model: /home/someone/models/fine\nslides: demo\n")
    page = render(options)
    assert page.says("trained elsewhere") and page.says("\u2026/fine")
    assert "someone" not in page.text and page.says("These slides are painted")


def test_what_was_left_out_is_named_with_reason_and_remedy(options):
    bad = ("br<o>ken", "unreadable", "cannot open /home/someone/x/b.svs", "copy it again")
    options["index_path"] = write_index(Path(options["index_path"]).parents[1], ["two"], bad)
    write_json(
        Path(options["failed_dir"]) / "two.json",
        {"slide": "two", "verdict": "corrupt", "reason": "is damaged", "remedy": "scan it"},
    )
    page = render(options)
    for words in ("br<o>ken", "cannot open \u2026/b.svs", "copy it again", "is damaged", "scan it"):
        assert page.says(words), words
    assert "someone" not in page.text
    Path(options["failed_dir"], "two.json").unlink()


def test_a_slide_that_cannot_be_opened_is_said_so_in_its_place(options, tmp_path):
    broken = tmp_path / "broken.svs"
    broken.write_bytes(b"no slide")
    options["slide_paths"] = {**options["slide_paths"], "two": broken}
    page = render(options)
    assert page.says("There is no picture of this slide") and len(page.all("input")) == 2
    options["slide_paths"] = {}
    assert len(render(options).all("input")) == 0


def test_damaged_pictures_and_records_do_not_matter(options, tmp_path):
    for name in ("overlay.jpg", "montage.png", "record.json", "target.png"):
        (tmp_path / name).write_bytes(b"{")
    options["overlay_paths"] = [tmp_path / "overlay.jpg"]
    options["montage_paths"] = [tmp_path / "montage.png"]
    options["record_paths"] = [*options["record_paths"], tmp_path / "record.json"]
    options["target_paths"] = [*options["target_paths"], tmp_path / "target.png"]
    assert len(render(options).all("input")) == 4


def test_confidence_and_remarks_stand_beside_every_result(options, cohort, tmp_path):
    record = read_json(cohort.record_paths[0])
    said = {"confidence": 0.4321, "remarks": ["the source shows hardly any nuclei"]}
    head = {"operator_from": "head", "residual": None, "head": {"expected_de": 7.77}}
    doubtful = tmp_path / "doubtful.json"
    write_json(doubtful, {**record, **said, **head})
    page = render({**options, "record_paths": [doubtful], "report_path": tmp_path / "report.html"})
    assert page.says("0.43") and page.says("hardly any nuclei") and page.says("7.8")


def test_a_large_cohort_shows_its_most_doubtful_slides(options, cohort, tmp_path):
    worst = tmp_path / "demo" / "two.json"
    record = stage.read_json(next(path for path in cohort.record_paths if path.stem == "two"))
    write_json(worst, {**record, "residual": {**record["residual"], "median_de": 9.0}})
    options["record_paths"] = [cohort.record_paths[0], worst]
    options["max_slides"] = 1
    page = render(options)
    assert page.says("the 1 most doubtful slides are shown")
    assert [slider["aria-label"][:4] for slider in page.all("input")] == ["two:", "two,"]


def test_image_sets_are_in_the_tables(options, tmp_path):
    path = tmp_path / "demo" / "set.json"
    images = [{"name": "x.png", "mode_used": "operator"}, {"name": "y.png", "mode_used": "render"}]
    write_json(path, {"slide": "set", "target": "demo", "kind": "images", "images": images})
    options["record_paths"] = [path]
    page = render(options)
    assert page.says("2 images") and page.says("operator, render")


def test_nothing_at_all_still_gives_a_report(options, tmp_path):
    options |= {"record_paths": [], "normalized_paths": [], "slide_paths": {}, "target_paths": []}
    options["index_path"] = write_index(tmp_path, [])
    page = render(options)
    assert page.says("0 slides in the stain of no target") and page.says("No slide was normalised")


def test_unchanged_slides_without_tiles_are_shown(options, cohort, tmp_path):
    record = stage.read_json(cohort.record_paths[0])
    path = tmp_path / "demo" / f"{cohort.record_paths[0].stem}.json"
    changes = {"tiles": [], "residual": None, "mode_used": "unchanged", "reason": "no tissue"}
    write_json(path, {**record, **changes})
    options["record_paths"] = [path]
    page = render(options)
    assert page.says("made by unchanged (no tissue)") and len(page.all("input")) == 2


def test_the_crop_is_at_full_resolution_and_both_sides_show_the_same_place(options, cohort):
    page = render(options)
    details = [p for p in page.all("img") if "full resolution" in p["alt"]]
    assert {(p["width"], p["height"]) for p in details} == {(str(stage.DETAIL_PX),) * 2}
    assert len(details) == 4
    pairs = [[_pixels(p["src"]) for p in details[start : start + 2]] for start in (0, 2)]
    for after, before in pairs:
        lightness = [image.mean(axis=2).ravel() for image in (before, after)]
        assert np.corrcoef(*lightness)[0, 1] > 0.9


def _pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1]))), float)


def test_the_first_screen_says_who_wins_where_ours_loses_and_what_was_not_run(options, tmp_path):
    (tmp_path / "summary.csv").write_text(
        "method,target,metric,value,ci_low,ci_high,n\n"
        "identity,demo,ciede2000_truth,12.3,11,13,8\n"
        "macenko,demo,ciede2000_truth,2.0,1.8,2.2,8\n"
        "macenko,demo,ciede2000_truth_minus_delivered,-0.5,-0.7,-0.3,8\n"
        "delivered,demo,ciede2000_truth,2.5,2.3,2.7,8\n"
    )
    rate = {"state": "done", "failure": None, "seconds_per_megapixel": 1.5, "tiles": 8}
    lacking = {"state": "not run", "failure": "no weights <b>", "seconds_per_megapixel": None}
    records = {name: {"arm": name, **rate} for name in ("identity", "macenko", "delivered")}
    records["nst"] = {"arm": "nst", **lacking, "tiles": 0}
    for name, record in records.items():
        write_json(tmp_path / f"{name}.json", record)
    options["summary_path"] = tmp_path / "summary.csv"
    options["arm_record_paths"] = [tmp_path / f"{name}.json" for name in records]
    page = render(options)
    assert page.says("Nearest to the truth: Macenko (2.00 \u0394E, 1.80 to 2.20)")
    assert page.says("On truth, StainFuser, as delivered is behind Macenko by 0.50 \u0394E.")
    assert page.says("NST not run: no weights <b>") and len(page.all("svg")) == 1
    first = next(attributes["id"] for attributes in page.all("section"))
    assert first == "verdict"


def test_whole_slides_are_shown_with_cause_and_remedy(options, tmp_path):
    finding = {
        "signature": "desaturated",
        "what": "chroma of tissue",
        "value": 0.41,
        "limit": 0.6,
        "is_found": True,
        "cause": "the target is unlike others",
        "remedy": "choose another target",
    }
    drift = {"tiles": 9, "source_od": 0.04, "result_od": 0.05, "unexplained_od": 0.01}
    content = {
        "slide": "two",
        "target": "demo",
        "seam_score": 1.04,
        "drift": {"stroma": drift},
        "invariance": None,
        "findings": [finding, {**finding, "signature": "other", "is_found": False, "value": None}],
    }
    write_json(tmp_path / "two.json", content)
    options["consistency_paths"] = [tmp_path / "two.json", tmp_path / "absent.json"]
    page = render(options)
    assert page.says("two: desaturated") and page.says("Remedy: choose another target.")
    assert page.says("1.04") and page.says("0.040, 0.050, 0.010")
    assert not page.says("two: other")
