"""Evaluation tiles and arms' results as files: there and back, and other files refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from stainfuser.errors import InputError
from stainfuser.io.evaluation_store import (
    ArmResult,
    ArmStore,
    EvaluationSample,
    open_arm_writer,
    read_sample,
    write_sample,
)

TILES = np.arange(3 * 8 * 8 * 3, dtype=np.uint8).reshape(3, 8, 8, 3)


def sample(**changes) -> EvaluationSample:
    labels = np.arange(3 * 64, dtype=np.int32).reshape(3, 8, 8)
    parts = {
        "source": TILES,
        "coords": np.array([[1, 2], [3, 4], [5, 6]]),
        "rows": np.array([2, 0, 1]),
        "truth": TILES // 2,
        "nuclei": labels,
        "source_nuclei": labels + 1,
        "attrs": {"slide": "ä b", "mpp": 0.5, "truth_target": "demo"},
    }
    return EvaluationSample(**{**parts, **changes})


def test_a_sample_comes_back_as_it_was(tmp_path):
    write_sample(tmp_path / "a.h5", sample())
    found = read_sample(tmp_path / "a.h5")
    for name in ("source", "coords", "rows", "truth", "nuclei", "source_nuclei"):
        assert np.array_equal(getattr(found, name), getattr(sample(), name))
    assert found.attrs == sample().attrs and len(found) == 3
    assert np.array_equal(found.truth_of("demo"), TILES // 2) and found.truth_of("other") is None


def test_what_is_not_known_is_none(tmp_path):
    write_sample(tmp_path / "a.h5", sample(truth=None, nuclei=None))
    found = read_sample(tmp_path / "a.h5")
    assert found.truth is None and found.nuclei is None and found.truth_of("demo") is None


def test_results_come_back_by_target_and_slide(tmp_path):
    result = ArmResult(TILES[:2], np.array([True, False]), ["", "broken"])
    with open_arm_writer(tmp_path / "x.h5", {"arm": "x"}) as writer:
        writer.add("t 1", "ä 'b\".c", result)
        writer.set_attributes({"state": "done", "failure": ""})
    store = ArmStore(tmp_path / "x.h5")
    assert store.groups == [("t 1", "ä 'b\".c")] and store.attrs["state"] == "done"
    found = store.read("t 1", "ä 'b\".c")
    assert np.array_equal(found.image, TILES[:2]) and found.notes == ["", "broken"]
    assert found.is_made.tolist() == [True, False]


def test_an_arm_without_results_is_a_valid_file(tmp_path):
    with open_arm_writer(tmp_path / "x.h5", {"arm": "x"}) as writer:
        writer.set_attributes({"state": "not run", "failure": "no weights"})
    assert ArmStore(tmp_path / "x.h5").groups == []


def test_other_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = TILES
    for name, says in (
        ("absent.h5", "there is no such file"),
        ("text.h5", "not a readable HDF5 file"),
        ("other.h5", "no sample of evaluation tiles"),
    ):
        with pytest.raises(InputError, match=says):
            read_sample(tmp_path / name)
