"""The demo cohort as files: slides, their truth, nucleus labels and the reference image."""

from __future__ import annotations

import json

import numpy as np
import openslide
import pytest
from PIL import Image

from stainfuser.errors import ConfigError
from stainfuser.stages.make_demo_slide import make_demo_slide
from stainfuser.stages.make_demo_target import make_demo_target

OPTIONS = {
    "slides": {"cedar-1": "cedar", "été no. 2": "fjord"},
    "target_laboratory": "harbour",
    "slide_px": 1030,
    "mpp": 0.5,
    "target_px": 512,
}


def make(folder, slide, seed=1, **changes):
    paths = {
        "slide_path": folder / "slides" / f"{slide}.svs",
        "truth_path": folder / "truth" / f"{slide}.svs",
        "nuclei_path": folder / "nuclei" / f"{slide}.png",
    }
    make_demo_slide(slide=slide, seed=seed, **paths, **{**OPTIONS, **changes})
    return paths


def pixels(path):
    with openslide.OpenSlide(str(path)) as slide:
        return np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return {slide: make(folder, slide) for slide in OPTIONS["slides"]}


@pytest.mark.parametrize("kind", ["slide_path", "truth_path"])
def test_slides_open_as_aperio_pyramids(cohort, kind):
    for paths in cohort.values():
        with openslide.OpenSlide(str(paths[kind])) as slide:
            assert slide.dimensions == (1030, 1030)
            assert slide.level_count == 2
            assert slide.properties["openslide.vendor"] == "aperio"
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
            assert slide.properties["openslide.objective-power"] == "20"


def test_the_truth_is_the_same_tissue_in_another_look(cohort):
    for paths in cohort.values():
        source, truth = pixels(paths["slide_path"]), pixels(paths["truth_path"])
        grey = [image.astype(float).mean(axis=-1).ravel() for image in (source, truth)]
        assert np.corrcoef(*grey)[0, 1] > 0.9
        tissue = truth.min(axis=-1) < 200
        assert np.abs(source[tissue].astype(int) - truth[tissue]).mean() > 12


def test_labels_lie_on_dark_nuclei_of_both_slides(cohort):
    for paths in cohort.values():
        with Image.open(paths["nuclei_path"]) as picture:
            labels = np.asarray(picture)
            stamp = picture.text
        assert labels.dtype == np.uint16
        assert labels.shape == (1030, 1030)
        assert len(np.unique(labels)) > 300
        assert stamp["rule"] == "make_demo_slide"
        assert json.loads(stamp["config"])["seed"] == 1
        for kind in ("slide_path", "truth_path"):
            image = pixels(paths[kind])
            tissue = image.min(axis=-1) < 215
            assert image[labels > 0].mean() < image[tissue & (labels == 0)].mean() - 15


def test_every_slide_is_other_tissue(cohort):
    first, second = (pixels(paths["truth_path"]).astype(float) for paths in cohort.values())
    assert abs(np.corrcoef(first.mean(-1).ravel(), second.mean(-1).ravel())[0, 1]) < 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(cohort, tmp_path):
    again = make(tmp_path / "again", "cedar-1")
    other = make(tmp_path / "other", "cedar-1", seed=2)
    for kind, path in cohort["cedar-1"].items():
        assert again[kind].read_bytes() == path.read_bytes(), kind
        assert other[kind].read_bytes() != path.read_bytes(), kind


def test_nothing_else_is_left_behind_and_no_path_is_written(cohort):
    for paths in cohort.values():
        for path in paths.values():
            names = {entry.name for entry in path.parent.iterdir()}
            assert names == {f"{slide}{path.suffix}" for slide in OPTIONS["slides"]}
            assert str(path.parent).encode() not in path.read_bytes()


def test_the_target_image_is_other_tissue_in_the_look_of_the_truth(cohort, tmp_path):
    path = tmp_path / "target.png"
    make_demo_target(image_path=path, seed=1, **OPTIONS)
    with Image.open(path) as picture:
        image = np.asarray(picture)
        assert picture.text["rule"] == "make_demo_target"
    assert image.shape == (512, 512, 3)
    tissue = image.min(axis=-1) < 215
    assert tissue.mean() > 0.5
    truth = pixels(cohort["cedar-1"]["truth_path"])
    source = pixels(cohort["cedar-1"]["slide_path"])
    look, right, wrong = (
        np.median(i[i.min(axis=-1) < 215], axis=0) for i in (image, truth, source)
    )
    assert np.linalg.norm(look - right) < np.linalg.norm(look - wrong)
    make_demo_target(image_path=tmp_path / "again.png", seed=1, **OPTIONS)
    assert (tmp_path / "again.png").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("slide", "changes", "message"),
    [
        ("unknown", {}, r"demo\.slides\.unknown: there is no such slide"),
        ("x", {"slides": {"x": "forest"}}, r"demo\.slides\.x: 'forest' is no laboratory"),
        ("cedar-1", {"target_laboratory": ""}, r"demo\.target_laboratory: '' is no laboratory"),
        ("cedar-1", {"slide_px": 64}, r"demo\.slide_px: 64 px hold no tissue"),
        ("cedar-1", {"mpp": 5.0}, r"demo\.mpp: tissue cannot be drawn at 5\.0 um"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, slide, changes, message):
    with pytest.raises(ConfigError, match=message):
        make(tmp_path, slide, **changes)
    assert not list(tmp_path.iterdir())


def test_bad_options_of_the_target_are_refused(tmp_path):
    path = tmp_path / "target.png"
    with pytest.raises(ConfigError, match=r"demo\.target_px: 100 px hold no tissue"):
        make_demo_target(image_path=path, seed=1, **{**OPTIONS, "target_px": 100})
    with pytest.raises(ConfigError, match=r"demo\.target_laboratory"):
        make_demo_target(image_path=path, seed=1, **{**OPTIONS, "target_laboratory": "x"})
    assert not path.exists()
