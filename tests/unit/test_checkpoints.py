"""Checkpoints: the last two kept, a damaged one left out, a pickle with code not run."""

from __future__ import annotations

import os
import pickle

import pytest
import torch

from stainfuser.diffusion.checkpoints import Checkpoint, load_last_checkpoint, save_checkpoint


def checkpoint(step: int) -> Checkpoint:
    weights = {"w": torch.full((2,), float(step))}
    return Checkpoint(step, weights, weights, {"state": {}, "param_groups": []}, [["p", step, 1.5]])


def steps(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, checkpoint(step))
    assert steps(tmp_path) == ["step_00000010", "step_00000015"]
    loaded = load_last_checkpoint(tmp_path)
    assert (loaded.step, loaded.rows) == (15, [["p", 15, 1.5]])
    assert torch.equal(loaded.weights["w"], torch.full((2,), 15.0))


def test_nothing_saved_is_nothing_loaded(tmp_path):
    assert load_last_checkpoint(tmp_path / "absent") is None


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "state.json"])
def test_a_truncated_checkpoint_gives_way_to_the_one_before(tmp_path, name):
    for step in (5, 10):
        save_checkpoint(tmp_path, checkpoint(step))
    damaged = tmp_path / "step_00000010" / name
    damaged.write_bytes(damaged.read_bytes()[:7])
    assert load_last_checkpoint(tmp_path).step == 5


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def test_code_in_a_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    save_checkpoint(tmp_path / "c", checkpoint(5))
    with open(tmp_path / "c" / "step_00000005" / "optimizer.pt", "wb") as handle:
        pickle.dump(Harmful(), handle)
    assert load_last_checkpoint(tmp_path / "c") is None
    assert not (tmp_path / "harm").exists()


def test_a_write_that_dies_leaves_the_last_one(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, checkpoint(5))

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(10))
    assert load_last_checkpoint(tmp_path).step == 5
