"""Bad slides through the real workflow: each gets its sentence, none stops the others."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from helpers_workflow import Run, run_workflow

from stainfuser.io.pyramid_writer import write_slide

pytestmark = pytest.mark.workflow
GOOD = 'a "good" slide, façade'


def _tissue(seed: int) -> np.ndarray:
    """Return a pinkish blob with darker dots on glass, (1024, 1024, 3) uint8."""
    rng = np.random.default_rng(seed)
    image = np.full((1024, 1024, 3), 244, np.uint8)
    image[200:800, 150:850] = (222, 160, 200)
    for y, x in rng.integers((210, 160), (780, 830), (400, 2)):
        image[y : y + 12, x : x + 12] = (100, 60, 140)
    return image


@pytest.fixture(scope="module")
def bad_cohort(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("bad_cohort")
    slides = folder / "slides"
    slides.mkdir()
    options = {"mpp": 0.5, "objective_power": 20}
    write_slide(slides / f"{GOOD}.svs", _tissue(1), **options)
    whole = (slides / f"{GOOD}.svs").read_bytes()
    (slides / "zero.svs").write_bytes(b"")
    (slides / "truncated.svs").write_bytes(whole[: len(whole) // 2])
    (slides / "text.svs").write_text("not a slide")
    (slides / "folder.svs").mkdir()
    write_slide(slides / "blank.svs", np.full((1024, 1024, 3), 245, np.uint8), **options)
    write_slide(slides / "far.svs", _tissue(2), mpp=5000.0, objective_power=None)
    table = folder / "slides.csv"
    names = [GOOD, "zero", "truncated", "text", "folder", "blank", "far", "gone"]
    with open(table, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["slide", "path"])
        writer.writerows([name, f"slides/{name}.svs"] for name in names)
    shutil.copy(slides / f"{GOOD}.svs", folder / "kept.svs")
    _write_target(folder / "target.png")
    return run_workflow(folder, "tiles", "--config", "slides=slides.csv", "target=target.png")


def _write_target(path) -> None:
    from PIL import Image

    Image.fromarray(_tissue(3)).save(path)


def _index(run: Run) -> dict[str, dict[str, str]]:
    with open(run.folder / "results/slides/index.csv", encoding="utf-8", newline="") as handle:
        return {row["slide"]: row for row in csv.DictReader(handle)}


def test_the_run_ends_with_the_list_and_a_non_zero_exit(bad_cohort):
    assert bad_cohort.status != 0
    for name in ("zero", "truncated", "text", "folder", "blank", "far", "gone"):
        assert f"left out: {name}: " in bad_cohort.text
    assert "Traceback" not in bad_cohort.text


def test_the_good_slide_goes_on(bad_cohort):
    assert _index(bad_cohort)[GOOD]["verdict"] == "ok"
    assert (bad_cohort.folder / f"results/tiles/{GOOD}.h5").exists()


def test_every_bad_slide_has_a_verdict_a_reason_and_a_remedy(bad_cohort):
    rows = _index(bad_cohort)
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    assert verdicts["blank"] == "no_tissue"
    assert verdicts["far"] == "no_mpp"
    assert "ok" not in {verdict for name, verdict in verdicts.items() if name != GOOD}
    for name, row in rows.items():
        if name != GOOD:
            assert row["reason"]
            assert row["remedy"]
            assert not (bad_cohort.folder / f"results/tiles/{name}.h5").exists()


def test_left_out_slides_can_be_accepted(bad_cohort):
    options = ["slides=slides.csv", "target=target.png", "allow_failed_slides=true"]
    run = run_workflow(bad_cohort.folder, "tiles", "--config", *options)
    assert run.status == 0, run.text[-2000:]
    assert "left out: zero: " in run.text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["slides=nowhere", "target=target.png"], "nowhere"),
        (["slides=slides.csv", "target=missing.png"], "the target image does not exist"),
        (["slides=slides.csv", "target=demo"], "demo belongs to slides=demo"),
        (["slides=slides.csv", "target=target.png", "tilez={}"], "did you mean tiles"),
        (["slides=slides.csv", "target=target.png", "seed=many"], "seed: found 'many'"),
        (
            ["slides=slides.csv", "target=target.png", "model=nowhere"],
            "there is no such model folder",
        ),
    ],
)
def test_a_wrong_call_is_one_sentence(bad_cohort, options, sentence):
    run = run_workflow(bad_cohort.folder, "-n", "normalize", "--config", *options)
    assert run.status != 0
    assert sentence in run.text
    assert "Traceback" not in run.text


def test_a_target_that_is_no_image_or_blank_stops_with_one_sentence(bad_cohort):
    from PIL import Image

    (bad_cohort.folder / "text.png").write_text("hello")
    Image.new("RGB", (512, 512), (245, 245, 245)).save(bad_cohort.folder / "blank.png")
    for name in ("text", "blank"):
        options = ["slides=slides.csv", f"target={name}.png"]
        outcome = f"results/targets/{name}.png"
        run = run_workflow(bad_cohort.folder, outcome, "--config", *options)
        assert run.status != 0
        assert f"{name}.png: " in run.text
        assert "Traceback" not in run.text
        assert not (bad_cohort.folder / outcome).exists()
