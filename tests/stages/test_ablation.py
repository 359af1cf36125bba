"""The ablation as stages: phantoms, instances that fail or not, and what is made of them."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest
import yaml
from accelerate.state import AcceleratorState
from PIL import Image

from stainfuser.ablation_plan import AXES, plan_instances
from stainfuser.diffusion import ablation_training
from stainfuser.diffusion.ablation_data import AblationPairs, read_phantoms
from stainfuser.diffusion.ablation_training import averaged, training_options
from stainfuser.errors import ConfigError, InputError
from stainfuser.stages.make_ablation_phantoms import make_ablation_phantoms
from stainfuser.stages.summarize_ablation import name_of, summarize_ablation
from stainfuser.stages.train_ablation import train_ablation
from stainfuser.stain.metrics import ciede2000, gradient_correlation

CENTRE = {
    "training_px": 32,
    "run_px": 32,
    "magnification": "40x",
    "targets": 2,
    "training_steps": 2,
    "sampling_steps": 0,
    "objective": "bridge",
    "context_tokens": 8,
    "pair_method": "truth",
    "autoencoder": "none",
}
SMALL = {"batch_size": 2, "channels": [16, 16], "decoder_channels": 8, "autoencoder_steps": 2}


@pytest.fixture(autouse=True)
def forget_precision():
    """Let other tests of this process choose their precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def config(repository):
    content = yaml.safe_load((repository / "config.yaml").read_text())
    return {"train": {**content["train"], **SMALL}, "pairs": content["pairs"]}


@pytest.fixture(scope="module")
def phantoms_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantoms") / "phantoms.h5"
    paint(path)
    return path


def paint(path, **changes):
    sizes = {"tile_px": 64, "sections": 1, "sources": 8, "sources_per_target": 3, "test_pairs": 3}
    make_ablation_phantoms(phantoms_path=path, seed=1, targets=2, **{**sizes, **changes})


def outcome_of(folder, phantoms_path, config, **changes):
    instance = {**CENTRE, **changes}
    path = folder / f"{name_of(instance, CENTRE)}.json"
    train_ablation(
        phantoms_path=phantoms_path,
        outcome_path=path,
        work_dir=folder / "work",
        seed=1,
        instance=instance,
        **config,
    )
    return path


def test_noise_prediction_is_trained_where_others_are_tuned_on_pixels_too(config):
    """`snakemake ablation` with the demo's configuration named that instance as failed."""
    tuned = {**config["train"], "finetune_steps": 60}
    steps = {
        name: training_options({**CENTRE, "objective": name}, tuned)["finetune_steps"]
        for name in ("bridge", "v_zero_snr", "epsilon")
    }
    assert steps == {"bridge": 60, "v_zero_snr": 60, "epsilon": 0}


def test_truths_are_the_sources_in_the_targets_laboratory(phantoms_path):
    phantoms = read_phantoms(phantoms_path)
    for number, row in enumerate(phantoms.rows):
        for source, truth in zip(phantoms.source[row], phantoms.truth[number], strict=True):
            assert gradient_correlation(source, truth) > 0.9
    untouched = [
        ciede2000(*pair) for pair in zip(phantoms.test_source, phantoms.test_truth, strict=True)
    ]
    assert min(untouched) > 1.0
    assert phantoms.test_nuclei.max() > 0


def test_the_same_phantoms_are_the_same_bytes(phantoms_path, tmp_path):
    paint(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == phantoms_path.read_bytes()


def test_the_methods_of_pairs_differ_in_what_is_stylised(phantoms_path, config):
    phantoms = read_phantoms(phantoms_path)
    made = {}
    for method in ("truth", "class_guided", "recolour"):
        pairs = AblationPairs(phantoms, 2, method, config["pairs"])
        target, source = map(int, np.argwhere(pairs.planned)[0])
        made[method] = pairs.stylized(target, source)
        assert gradient_correlation(pairs.source(source), made[method]) > 0.8
        assert len(pairs.split()["train"]) == pairs.planned.sum()
    assert np.array_equal(made["truth"], phantoms.truth[0, 0])
    assert not np.array_equal(made["truth"], made["class_guided"])


def test_more_targets_than_painted_is_a_sentence(phantoms_path, config):
    with pytest.raises(ConfigError, match="3 targets were asked for"):
        AblationPairs(read_phantoms(phantoms_path), 3, "truth", config["pairs"])


def test_options_of_an_instance(config):
    train = config["train"]
    options = training_options({**CENTRE, "context_tokens": 0, "magnification": "20x"}, train)
    assert options["context_tokens"] is None
    assert options["half_resolution_probability"] == 1.0
    assert options["latent_channels"] == 3 * train["latent_patch_px"] ** 2
    tuned = training_options({**CENTRE, "autoencoder": "finetuned"}, train)
    assert tuned["latent_channels"] == train["latent_channels"]
    assert tuned["autoencoder_steps"] == 2
    assert training_options({**CENTRE, "autoencoder": "frozen"}, train)["autoencoder_steps"] == 0


def test_a_failing_instance_is_named_and_stops_no_other(phantoms_path, config, tmp_path):
    table = plan_instances(
        CENTRE, {"pair_method": ["truth", "nst"], "run_px": [32, 64], "training_px": [32, 64]}, []
    )
    paths = [outcome_of(tmp_path, phantoms_path, config, **row) for row in table.rows]
    failed = {p.stem: json.loads(p.read_text())["failure"] for p in paths}
    assert {name for name, failure in failed.items() if failure} == {"pair_method nst"}
    assert "feature_weights" in failed["pair_method nst"]
    assert len(list((tmp_path / "work").glob("*/model"))) == 2, "run_px trains no model of its own"
    summary, figures = (
        tmp_path / "summary.csv",
        [tmp_path / "run_px.png", tmp_path / "pair_method.png"],
    )
    summarize_ablation(
        outcome_paths=paths,
        summary_path=summary,
        figure_paths=figures,
        seed=1,
        centre=CENTRE,
        crossed=[["training_px", "run_px"]],
        bootstrap_samples=50,
        confidence=0.95,
    )
    rows = list(csv.DictReader(summary.open()))
    seen = {tuple(row[axis] for axis in AXES) for row in rows}
    assert seen == {tuple(str(row[axis]) for axis in AXES) for row in table.rows}
    for row in rows:
        if row["failure"]:
            assert row["pair_method"] == "nst" and row["n"] == "0" and not row["value"]
        else:
            assert float(row["ci_low"]) <= float(row["value"]) <= float(row["ci_high"])
            assert row["n"] == "3"
    assert {row["metric"] for row in rows} >= {"ciede2000_truth_20x", "ciede2000_truth_40x"}
    for figure in figures:
        assert np.asarray(Image.open(figure)).std() > 5


def test_an_instance_gives_the_same_numbers_again(phantoms_path, config, tmp_path):
    first, second = (
        outcome_of(tmp_path / name, phantoms_path, config) for name in ("first", "second")
    )
    assert first.read_bytes() == second.read_bytes()


def test_crops_that_do_not_fit_are_a_failure_with_a_remedy(phantoms_path, config, tmp_path):
    path = outcome_of(tmp_path, phantoms_path, config, training_px=64, magnification="mixed")
    assert "raise ablation.tile_px" in json.loads(path.read_text())["failure"]


def test_a_defect_of_ours_is_not_swallowed(phantoms_path, config, tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(ablation_training, "_check_crop", broken)
    with pytest.raises(ZeroDivisionError):
        outcome_of(tmp_path, phantoms_path, config)


def test_bad_phantoms(tmp_path):
    with pytest.raises(ConfigError, match=r"ablation\.tile_px"):
        paint(tmp_path / "small.h5", tile_px=32)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["source"] = [1]
    with pytest.raises(InputError, match="does not hold"):
        read_phantoms(tmp_path / "other.h5")


def test_averaging_takes_whole_boxes():
    image = np.zeros((5, 4, 3), np.uint8)
    image[0, 0] = 8
    assert averaged(image, 2).shape == (2, 2, 3)
    assert averaged(image, 2)[0, 0, 0] == 2
