"""Training a baseline as a stage: products, resuming to the byte, bad input."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from stainfuser.diffusion import optimization
from stainfuser.diffusion.baselines import load_baseline
from stainfuser.errors import ConfigError, InputError, TrainingError
from stainfuser.stages.train_baseline import train_baseline
from two_tone_tissue import DARK_PINK, PALE_BLUE, two_tone, write_tiles

OPTIONS = dict(
    source_tiles=4,
    steps=5,
    batch_size=2,
    crop_px=32,
    channels=4,
    blocks=1,
    learning_rate=0.002,
    ema_decay=0.9,
    sampling_steps=2,
    ensemble=1,
    checkpoint_steps=2,
)


@pytest.fixture(autouse=True)
def forget_precision():
    """Let other tests of this process choose their precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    Image.fromarray(two_tone(9, 80, DARK_PINK)).save(folder / "target.png")
    return {
        "tiles_paths": [write_tiles(folder / "a slide.h5", PALE_BLUE)],
        "target_path": folder / "target.png",
    }


def train(folder, inputs, baseline="cyclegan_like", **changes):
    train_baseline(
        baseline=baseline,
        baseline_dir=folder / "out",
        work_dir=folder / "work",
        seed=1,
        threads=1,
        device="cpu",
        **inputs,
        **{**OPTIONS, **changes},
    )
    return folder / "out"


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_products(inputs, tmp_path):
    out = train(tmp_path, inputs)
    assert {path.name for path in out.iterdir()} == {
        "config.json",
        "model.safetensors",
        "losses.csv",
        "samples.png",
    }
    rows = list(csv.DictReader((out / "losses.csv").open()))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 5]
    config = json.loads((out / "config.json").read_text())
    assert config["kind"] == "cyclegan_like" and config["stamp"]["rule"] == "train_baseline"
    assert str(tmp_path) not in (out / "config.json").read_text()
    assert np.asarray(Image.open(out / "samples.png")).std() > 10


def test_a_killed_training_ends_in_the_same_bytes(inputs, tmp_path, monkeypatch):
    whole = digests(train(tmp_path / "whole", inputs))
    plain = optimization._step

    def dying(prepared, loss_of, step, *rest):
        if step == 3:
            raise KeyboardInterrupt
        return plain(prepared, loss_of, step, *rest)

    monkeypatch.setattr(optimization, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", inputs)
    assert not (tmp_path / "killed" / "out").exists()
    monkeypatch.setattr(optimization, "_step", plain)
    assert digests(train(tmp_path / "killed", inputs)) == whole


def test_another_configuration_starts_anew(inputs, tmp_path):
    train(tmp_path, inputs)
    train(tmp_path, inputs, learning_rate=0.001)
    assert len(list((tmp_path / "work").glob("checkpoints_*"))) == 1


def test_a_loss_that_is_not_finite_stops_with_a_sentence(inputs, tmp_path):
    out = train(tmp_path, inputs, learning_rate=1e30, steps=40)
    assert [path.name for path in out.iterdir()] == ["failure.json"]
    with pytest.raises(TrainingError, match=r"expected a finite number; lower baselines\.learning"):
        load_baseline(out)
    assert (train(tmp_path, inputs) / "model.safetensors").exists(), "another configuration works"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "nothing"}, "unknown"),
        ({"steps": 0}, "below 1"),
        ({"channels": 6}, "multiple of 4"),
    ],
)
def test_bad_options_are_named(inputs, tmp_path, changes, said):
    with pytest.raises(ConfigError, match=said):
        train(tmp_path, inputs, **changes)


def test_too_little_to_learn_from_is_a_sentence(inputs, tmp_path):
    empty = write_tiles(tmp_path / "empty.h5", PALE_BLUE, count=0)
    with pytest.raises(InputError, match="no slide has a tile"):
        train(tmp_path, {**inputs, "tiles_paths": [empty]})
    Image.fromarray(two_tone(9, 24, DARK_PINK)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match=r"small\.png"):
        train(tmp_path, {**inputs, "target_path": tmp_path / "small.png"})
    other = write_tiles(tmp_path / "other.h5", PALE_BLUE, side=40)
    with pytest.raises(InputError, match="differ"):
        train(tmp_path, {**inputs, "tiles_paths": [*inputs["tiles_paths"], other]})
