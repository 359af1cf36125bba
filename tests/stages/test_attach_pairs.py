from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stainfuser.errors import InputError
from stainfuser.io.images import write_image
from stainfuser.io.pair_store import PairStore
from stainfuser.stages.attach_pairs import attach_pairs

SOURCES, TARGETS, SIDE = ["a_2", "a_10", "b_1"], ["t 1", "t 2"], 16


def image(*key: int) -> np.ndarray:
    return np.random.default_rng(key).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Return a folder laid out as SPI-2M: PNGs, and an array per target."""
    folder = tmp_path / "SPI-2M"
    for number, name in enumerate(sorted(SOURCES)):
        write_image(folder / "sources" / f"{name}.png", image(1, number))
    (folder / "stylized").mkdir()
    for number, name in enumerate(TARGETS):
        write_image(folder / "targets" / f"{name}.png", image(2, number))
        rows = np.stack([image(3, number, source) for source in range(len(SOURCES))])
        np.save(folder / "stylized" / f"{name}.npy", rows)
    return folder


def test_pairs_follow_the_sorted_names(published, tmp_path, monkeypatch):
    pairs = tmp_path / "results/pairs/pairs.h5"
    attach_pairs(folder=published, pairs_path=pairs)
    monkeypatch.chdir("/")
    with PairStore(pairs) as store:
        assert store.source_ids == ["a_10", "a_2", "b_1"]
        assert store.target_ids == TARGETS
        assert store.planned.all()
        assert store.mpp == 0.25
        for target in range(2):
            np.testing.assert_array_equal(store.target(target), image(2, target))
            for source in range(3):
                np.testing.assert_array_equal(store.source(source), image(1, source))
                np.testing.assert_array_equal(
                    store.stylized(target, source), image(3, target, source)
                )


def test_arrays_are_not_copied_and_no_absolute_path_is_kept(published, tmp_path):
    pairs = tmp_path / "results/pairs/pairs.h5"
    attach_pairs(folder=published, pairs_path=pairs)
    content = pairs.read_bytes()
    assert image(3, 0, 0).tobytes() not in content
    assert str(tmp_path).encode() not in content
    # Whoever reads through, sees what is in the array now.
    array = np.load(published / "stylized" / "t 1.npy", mmap_mode="r+")
    array[1] = 7
    array.flush()
    with PairStore(pairs) as store:
        assert (store.stylized(0, 1) == 7).all()


def test_arrays_beside_the_pngs_are_found(published, tmp_path):
    for path in (published / "stylized").glob("*.npy"):
        path.rename(published / "targets" / path.name)
    attach_pairs(folder=published, pairs_path=tmp_path / "pairs.h5")
    with PairStore(tmp_path / "pairs.h5") as store:
        np.testing.assert_array_equal(store.stylized(1, 2), image(3, 1, 2))


def damage(kind: str, folder: Path) -> None:
    array = folder / "stylized" / "t 2.npy"
    if kind == "no_sources":
        (folder / "sources").rename(folder / "quellen")
    elif kind == "no_array":
        array.unlink()
    elif kind == "too_few_rows":
        np.save(array, np.load(array)[:2])
    elif kind == "float":
        np.save(array, np.load(array).astype(np.float32))
    elif kind == "fortran":
        np.save(array, np.asfortranarray(np.load(array)))
    elif kind == "truncated":
        os.truncate(array, array.stat().st_size - 10)
    elif kind == "pickle":
        np.save(array, np.array([{"a": 1}], object), allow_pickle=True)
    elif kind == "other_size":
        write_image(folder / "sources" / "b_1.png", np.zeros((8, 8, 3), np.uint8))
    elif kind == "broken_png":
        (folder / "targets" / "t 1.png").write_bytes(b"PNG")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("no_sources", "sources/ has no PNG"),
        ("no_array", r"1 of 2 targets have no array, e\.g\. t 2"),
        ("too_few_rows", r"t 2\.npy: it holds uint8 \(2, 16, 16, 3\), expected uint8 \(3,"),
        ("float", "it holds float32"),
        ("fortran", "C order"),
        ("truncated", r"t 2\.npy: not an intact \.npy array"),
        ("pickle", r"not an intact \.npy array"),
        ("other_size", r"b_1\.png: its shape is \(8, 8, 3\)"),
        ("broken_png", r"t 1\.png"),
    ],
)
def test_bad_folders_are_told_from_each_other(published, tmp_path, kind, sentence):
    damage(kind, published)
    with pytest.raises(InputError, match=sentence):
        attach_pairs(folder=published, pairs_path=tmp_path / "pairs.h5")
    assert not (tmp_path / "pairs.h5").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        attach_pairs(folder=tmp_path / "none", pairs_path=tmp_path / "pairs.h5")
