"""Studies as stages: the files they write, and that their words follow their numbers."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from test_ablation import CENTRE

from stainfuser.diffusion.ablation_data import draw_phantoms
from stainfuser.errors import ConfigError
from stainfuser.io import image_collection
from stainfuser.stages import study_data_diversity as diversity
from stainfuser.stages import study_latent_detail as detail
from stainfuser.stages import study_scanner_variation as scanners
from stainfuser.stages.make_ablation_phantoms import make_ablation_phantoms

NUMBERS = {"bootstrap_samples": 50, "confidence": 0.95}


@pytest.fixture(scope="module")
def config(repository):
    content = yaml.safe_load((repository / "config.yaml").read_text())
    return {"train": content["train"], "pairs": content["pairs"], "centre": CENTRE}


def outputs(folder):
    return {
        "answer_path": folder / "answer.md",
        "table_path": folder / "table.csv",
        "figure_path": folder / "figure.png",
    }


class FakeModel:
    """A pipeline that darkens every tile by a share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, tiles, target, **_):
        images = [np.rint((1 - self.share) * tile).astype(np.uint8) for tile in tiles]
        return SimpleNamespace(images=images)

    def encode_target(self, image):
        return image


def test_volume_against_diversity(config, tmp_path, monkeypatch):
    trained = []

    def train(instance, phantoms, *_):
        """Stand in for a training: the fewer classes, the darker the result."""
        trained.append(phantoms)
        return FakeModel(0.0 if len(trained) == 1 else 0.3)

    monkeypatch.setattr(diversity, "trained_model", train)
    diversity.study_data_diversity(
        **outputs(tmp_path),
        work_dir=tmp_path / "work",
        seed=1,
        tile_px=64,
        sections=1,
        pairs_per_target=4,
        test_pairs=3,
        **config,
        **NUMBERS,
    )
    assert len(trained) == 2 + len(diversity.CLASSES)
    sizes = [phantoms.truth.shape[1] for phantoms in trained]
    assert sizes == [4, 4, 4, 4, 4, 4]
    text = (tmp_path / "answer.md").read_text()
    for name in diversity.CLASSES:
        assert f"{name}: never seen, against seen, the colour error is higher by" in text
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    untouched = {
        row["data"]: row["value"]
        for row in rows
        if (row["arm"], row["metric"]) == (diversity.UNTOUCHED, "ciede2000_truth")
    }
    assert len(set(untouched.values())) == len(diversity.CLASSES), "classes show other tissue"


def test_training_sets_have_one_size_and_lack_what_they_are_named_for():
    sets = diversity.training_sets(12)
    assert {sum(shares.values()) for shares in sets.values()} == {12, 4}
    for name in diversity.CLASSES:
        assert name not in sets[diversity.without(name)]
        assert set(sets[diversity.without(name)].values()) == {4}


def test_joined_sources_keep_their_truths():
    sizes = dict(sections=1, tile_px=64, sources=4, targets=2, sources_per_target=2, test_pairs=1)
    drawn = {
        name: draw_phantoms(**sizes, seed=1, composition=diversity._composition(64, name))
        for name in ("fat", "muscle")
    }
    both = diversity.joined(drawn, {"fat": 1, "muscle": 2})
    assert both.rows.shape == (2, 3) and len(both.source) == 8
    fat, muscle = drawn["fat"], drawn["muscle"]
    assert np.array_equal(fat.target, muscle.target), "laboratories do not depend on the tissue"
    row = int(both.rows[1, 2])
    assert np.array_equal(both.source[row], muscle.source[muscle.rows[1, 1]])
    assert np.array_equal(both.truth[1, 2], muscle.truth[1, 1])


def test_latent_detail(config, tmp_path, monkeypatch):
    phantoms = tmp_path / "phantoms.h5"
    make_ablation_phantoms(
        phantoms_path=phantoms,
        seed=1,
        targets=1,
        tile_px=64,
        sections=1,
        sources=2,
        sources_per_target=1,
        test_pairs=3,
    )
    spaces = []

    def train(instance, _, train_options, *__):
        spaces.append((instance["autoencoder"], train_options["latent_channels"]))
        return FakeModel(0.4 if instance["autoencoder"] == "finetuned" else 0.0)

    monkeypatch.setattr(detail, "trained_model", train)
    monkeypatch.setattr(detail, "round_trip", lambda model, image: image)
    arguments = dict(work_dir=tmp_path / "work", seed=1, **outputs(tmp_path), **config, **NUMBERS)
    detail.study_latent_detail(phantoms_path=phantoms, latents=[[4, 24]], **arguments)
    assert spaces == [("finetuned", 24), ("none", 48)]
    text = (tmp_path / "answer.md").read_text()
    assert "40x, latent, 2.0 times fewer numbers against pixel space" in text
    assert "colour error higher by" in text
    with pytest.raises(ConfigError, match=r"studies\.latents"):
        detail.study_latent_detail(phantoms_path=phantoms, latents=[[4, 49]], **arguments)


def test_scanner_variation_says_what_was_not_run(repository, tmp_path, monkeypatch):
    monkeypatch.setattr("stainfuser.diffusion.scanner_study.PHANTOM_REGIONS", 2)
    same = {"Untouched": lambda target: lambda source: source}
    monkeypatch.setattr(scanners, "available_arms", lambda *_: same)
    split = repository / "scripts/stainfuser/pretrained/data_split.csv"
    assert any(image_collection.is_mosaic(e.file) for e in image_collection.read_split_table(split))
    scanners.study_scanner_variation(
        split_path=split,
        model_dir=tmp_path,
        images_dir=tmp_path / "no images",
        scanners=None,
        fan_step=1,
        seed=1,
        **outputs(tmp_path),
        **NUMBERS,
    )
    text = (tmp_path / "answer.md").read_text()
    assert "No table of scanners was given" in text
    assert "fan protocols: not run" in text
    assert "phantom scanners: the least colour error is that of Untouched" in text
    assert "moved by 5.8 to 19.8 px" in text
