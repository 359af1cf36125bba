"""One JSON per normalised slide: what is measured, what is found, what cannot be measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
from evaluation_stages import Evaluation

from evaluation_files import SLIDE_PX, FailingModel, TrueModel, add_normalized, make_cohort
from slide_files import tissue_picture
from stainfuser.files import read_json, write_json
from stainfuser.io.images import write_image
from stainfuser.io.masks import write_mask
from stainfuser.stages.check_consistency import borders_px, check_consistency
from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od

OPTIONS = {"output_tile_px": 64, "block_px": 256, "tile_px": 128, "overlap_px": 32}


def mildly(rgb: np.ndarray) -> np.ndarray:
    """Return tissue with more of one dye and less of the other."""
    return od_to_rgb(rgb_to_od(rgb) * np.array([1.15, 0.9, 1.05], np.float32))


class Checked:
    """One slide with everything that its check reads."""

    def __init__(self, folder, picture: np.ndarray | None = None) -> None:
        self.cohort = make_cohort(folder, ["one"], tiles=9)
        write_image(self.cohort.target_paths[0], mildly(tissue_picture(256, seed=90)))
        self.cohort.normalized_paths, self.cohort.record_paths = [], []
        result = mildly(tissue_picture(SLIDE_PX, seed=0)) if picture is None else picture
        add_normalized(self.cohort, "one", "demo", result)
        self.record_path = self.cohort.record_paths[0]
        record = read_json(self.record_path)
        record["stamp"]["config"] = json.dumps(OPTIONS)
        write_json(self.record_path, {**record, "operator_from": "head", "model_mpp": 0.5})
        write_mask(folder / "mask.png", np.ones((64, 64), bool), {})
        self.evaluation = Evaluation(self.cohort)
        self.evaluation.run(["delivered"], tiles_per_slide=9)

    def run(self, model: type = TrueModel) -> dict:
        folder = self.cohort.folder
        check_consistency(
            slide="one",
            slide_path=self.cohort.slide_paths["one"],
            normalized_path=self.cohort.normalized_paths[0],
            record_path=self.record_path,
            mask_path=folder / "mask.png",
            sample_path=self.evaluation.sample_paths[0],
            delivered_path=folder / "evaluation" / "arms" / "delivered.h5",
            target_path=self.cohort.target_paths[0],
            model_dir=self.cohort.model_dir,
            report_path=folder / "consistency.json",
            seed=1,
            load_model=lambda folder, device: model(),
        )
        return read_json(folder / "consistency.json")


class AnyModel(TrueModel):
    """It restains what it is given, whatever it learned of the slide."""

    def __call__(self, source, target, **options):
        """Return the truth of (N, H, W, 3) uint8 tiles."""
        return super().__call__(
            source,
            target,
            **{k: options[k] for k in ("generator", "output_type", "mode")},
            slide=source.sum(),
            num_inference_steps=None,
        )


class MoodyModel(AnyModel):
    """A model whose result depends on the neighbours in the batch."""

    def __call__(self, source, target, **options):
        """Scale by the batch's own range, as the published implementation does."""
        found = super().__call__(source, target, **options)
        for start in range(0, len(source), options["batch_size"]):
            batch = found.images[start : start + options["batch_size"]]
            batch[:] = batch * (200.0 / batch.max())
        return found


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Checked:
    return Checked(tmp_path_factory.mktemp("checked"))


def found_in(content: dict) -> set[str]:
    return {f["signature"] for f in content["findings"] if f["is_found"]}


def test_a_faithful_slide_has_numbers_and_no_finding(checked):
    content = checked.run(AnyModel)
    assert found_in(content) == set() and len(content["findings"]) == 4
    assert 0.5 < content["seam_score"] < 1.5 and content["tiles"] == 9
    assert content["invariance"] == {"tile_order": 0, "batch_size": 0, "repeat": 0}
    assert content["stamp"]["rule"] == "check_consistency"
    assert checked.run(AnyModel) == content


def test_a_model_that_looks_at_its_neighbours_is_seen(checked):
    invariance = checked.run(MoodyModel)["invariance"]
    assert invariance["batch_size"] > 10 and invariance["repeat"] == 0


def test_a_model_that_fails_leaves_the_rest(checked):
    content = checked.run(FailingModel)
    assert content["invariance"] is None and content["seam_score"] is not None


def test_a_grey_slide_in_pieces_is_found_with_cause_and_remedy(tmp_path, caplog):
    good = mildly(tissue_picture(SLIDE_PX, seed=0)).astype(float)
    grey = 0.7 * good.mean(axis=2, keepdims=True) + 0.3 * good
    shades = np.random.default_rng(0).normal(0, 10, (8, 8, 1)).repeat(64, 0).repeat(64, 1)
    picture = np.clip(grey + shades, 0, 255).astype(np.uint8)
    with caplog.at_level("WARNING", logger="stainfuser"):
        content = Checked(tmp_path, picture).run(AnyModel)
    assert {"desaturated", "adjacent tiles disagree"} <= found_in(content)
    for finding in content["findings"]:
        assert finding["cause"] and finding["remedy"]
    assert "one: desaturated" in caplog.text and "Remedy" in caplog.text


def test_a_slide_that_cannot_be_read_is_not_measured(tmp_path):
    checked = Checked(tmp_path)
    checked.cohort.slide_paths["one"].write_bytes(b"no slide")
    assert checked.run(AnyModel)["seam_score"] is None


def test_borders_are_those_of_tiles_blocks_and_renderings(checked):
    record = read_json(checked.record_path)
    assert borders_px(record) == list(range(64, 512, 64))
    rendered = {**record, "mode_used": "render", "model_mpp": 1.0}
    # Model tiles of 128 px at 1 um, 32 px over each other: 192 px of level 0 apart.
    assert {192, 256, 384, 448} <= set(borders_px(rendered))
