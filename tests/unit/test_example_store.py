"""Stored examples: made once, resumed after a kill, made anew for another key."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.io.example_store import ExampleStore


def make(first: int) -> dict[str, np.ndarray]:
    rows = np.arange(first, first + 3)
    return {"pixels": np.full((3, 2, 2), rows[:, None, None], np.uint8), "labels": rows * 0.5}


def test_rows_are_read_in_the_order_asked_for(tmp_path):
    with ExampleStore.filled(tmp_path / "x.h5", "key", 7, make) as store:
        assert len(store) == 7
        found = store.read(np.array([5, 0, 5]))
    assert found["pixels"][:, 0, 0].tolist() == [5, 0, 5]
    assert found["labels"].tolist() == [2.5, 0.0, 2.5]


def test_a_killed_job_goes_on_where_it_stopped(tmp_path):
    calls = []

    def dying(first):
        calls.append(first)
        if first == 6 and calls.count(6) == 1:
            raise KeyboardInterrupt
        return make(first)

    with pytest.raises(KeyboardInterrupt):
        ExampleStore.filled(tmp_path / "x.h5", "key", 9, dying)
    with ExampleStore.filled(tmp_path / "x.h5", "key", 9, dying) as store:
        assert store.read(np.arange(9))["labels"].tolist() == [0.5 * row for row in range(9)]
    assert calls == [0, 3, 6, 6]


def test_another_key_or_a_damaged_file_is_made_anew(tmp_path):
    path = tmp_path / "x.h5"
    ExampleStore.filled(path, "key", 3, make).__exit__()

    def never(first):
        raise AssertionError("made again")

    ExampleStore.filled(path, "key", 3, never).__exit__()
    with pytest.raises(AssertionError):
        ExampleStore.filled(path, "other", 3, never)
    path.write_bytes(b"damaged")
    with ExampleStore.filled(path, "key", 3, make) as store:
        assert len(store) == 3
