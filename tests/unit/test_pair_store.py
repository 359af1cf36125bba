from __future__ import annotations

import os
import pickle
import shutil
import time
from multiprocessing import get_context
from pathlib import Path

import h5py
import numpy as np
import pytest

from stainfuser.errors import InputError
from stainfuser.io.image_store import ImagePlace, ImageStore, write_image_store
from stainfuser.io.pair_store import PairStore, write_attached_pairs, write_pair_views
from stainfuser.io.shards import ShardDraft, read_shard_info, write_shard

SIDE = 8
SHAPE = (SIDE, SIDE, 3)
ROWS_OF = {"t000": [0, 1, 2, 5], "t001": [3, 1, 4]}


def image(*key: int) -> np.ndarray:
    return np.random.default_rng(key).integers(1, 256, SHAPE, np.uint8)


def write_images(path: Path, count: int, letter: str) -> Path:
    ids = [f"{letter}{index}" for index in range(count)]
    places = [ImagePlace(f"slide {index}", index, 2 * index) for index in range(count)]
    write_image_store(
        path, (image(ord(letter), i) for i in range(count)), ids, places, {"mpp": 0.5}
    )
    return path


def write_pairs(folder: Path) -> Path:
    """Write six sources, two targets and their shards; return the file of pairs."""
    sources = write_images(folder / "sources.h5", 6, "s")
    targets = write_images(folder / "targets.h5", 2, "t")
    shards = []
    for number, (name, rows) in enumerate(ROWS_OF.items()):
        draft = ShardDraft(folder / "work" / name, {"a": 1}, len(rows), SHAPE, ["score"])
        for row, source in enumerate(rows):
            draft.put(row, image(99, number, source), {"score": source})
        draft.commit(len(rows))
        shards.append(folder / "stylized" / f"{name}.h5")
        write_shard(shards[-1], draft, rows, {"pair_target": name})
        draft.discard()
    write_pair_views(
        folder / "pairs.h5",
        sources_path=sources,
        targets_path=targets,
        shard_paths=shards,
        source_indices=[np.array(rows) for rows in ROWS_OF.values()],
        source_ids=[f"s{i}" for i in range(6)],
        target_ids=list(ROWS_OF),
        image_shape=SHAPE,
        attributes={"mpp": 0.5},
    )
    return folder / "pairs.h5"


@pytest.fixture
def pairs_path(tmp_path: Path) -> Path:
    return write_pairs(tmp_path / "pairs")


def check_all(store: PairStore) -> None:
    for target, rows in enumerate(ROWS_OF.values()):
        np.testing.assert_array_equal(store.target(target), image(ord("t"), target))
        assert np.flatnonzero(store.planned[target]).tolist() == sorted(rows)
        for source in rows:
            np.testing.assert_array_equal(store.source(source), image(ord("s"), source))
            np.testing.assert_array_equal(store.stylized(target, source), image(99, target, source))


def test_every_pair_is_read_back(pairs_path):
    with PairStore(pairs_path) as store:
        check_all(store)
        assert store.source_ids == [f"s{i}" for i in range(6)]
        assert store.target_ids == ["t000", "t001"]
        assert (store.mpp, store.image_px) == (0.5, SIDE)
        assert store.pairs.tolist() == [[0, 0], [0, 1], [0, 2], [0, 5], [1, 1], [1, 3], [1, 4]]


def test_pairs_not_planned_are_refused_and_read_as_zeros(pairs_path):
    with PairStore(pairs_path) as store, pytest.raises(IndexError, match="no pair of target 1"):
        store.stylized(1, 0)
    with h5py.File(pairs_path) as file:
        assert file["stylized"].shape == (2, 6, *SHAPE)
        assert not file["stylized"][1, 0].any()
        np.testing.assert_array_equal(file["stylized"][1, 4], image(99, 1, 4))
        np.testing.assert_array_equal(file["source"][2], image(ord("s"), 2))
        assert file["mpp"][()] == 0.5


def test_the_folder_can_be_moved(pairs_path, tmp_path, monkeypatch):
    moved = tmp_path / "elsewhere" / "päirs"
    moved.parent.mkdir()
    shutil.move(pairs_path.parent, moved)
    monkeypatch.chdir("/")
    with PairStore(moved / "pairs.h5") as store:
        check_all(store)
    with h5py.File(moved / "pairs.h5") as file:
        np.testing.assert_array_equal(file["stylized"][0, 5], image(99, 0, 5))
    assert str(tmp_path).encode() not in (moved / "pairs.h5").read_bytes()


def test_no_pixels_are_copied(pairs_path):
    assert pairs_path.stat().st_size < 40_000
    with h5py.File(pairs_path) as file:
        assert file["stylized"].is_virtual


def test_same_content_gives_the_same_bytes_at_any_time(tmp_path):
    files = [write_pairs(tmp_path / "a" / "pairs").parent]
    time.sleep(1.1)  # HDF5 notes times in whole seconds
    files.append(write_pairs(tmp_path / "b" / "pairs").parent)
    for name in ("pairs.h5", "sources.h5", "stylized/t001.h5"):
        assert (files[0] / name).read_bytes() == (files[1] / name).read_bytes()


def test_a_store_goes_to_other_processes(pairs_path):
    store = PairStore(pairs_path)
    first = store.stylized(0, 0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(store)).stylized(0, 0), first)
    with get_context("fork").Pool(2) as pool:
        for read in pool.starmap(store.stylized, [(0, 0)] * 4):
            np.testing.assert_array_equal(read, first)
    store.close()
    np.testing.assert_array_equal(store.stylized(0, 0), first)


@pytest.mark.parametrize("damage", ["missing", "truncated", "no_shard", "not_pairs"])
def test_damaged_stores_are_named(pairs_path, damage):
    if damage == "missing":
        pairs_path.unlink()
    elif damage == "truncated":
        os.truncate(pairs_path, 500)
    elif damage == "no_shard":
        (pairs_path.parent / "stylized" / "t001.h5").unlink()
    else:
        shutil.copy(pairs_path.parent / "sources.h5", pairs_path)
    with pytest.raises(InputError, match=r"pairs\.h5"):
        PairStore(pairs_path)


def test_attached_arrays_are_read_in_place(tmp_path, monkeypatch):
    arrays = []
    for target in range(2):
        path = tmp_path / "published" / f"{target}.npy"
        path.parent.mkdir(exist_ok=True)
        np.save(path, np.stack([image(7, target, source) for source in range(3)]))
        arrays.append((path, np.load(path, mmap_mode="r").offset))
    pairs = tmp_path / "results" / "pairs.h5"
    write_attached_pairs(
        pairs,
        sources=[image(1, i) for i in range(3)],
        targets=[image(2, i) for i in range(2)],
        arrays=arrays,
        source_ids=["a", "b", "c"],
        target_ids=["x", "y"],
        image_shape=SHAPE,
        attributes={"mpp": 0.25},
    )
    monkeypatch.chdir("/")
    with PairStore(pairs) as store:
        assert store.planned.all()
        np.testing.assert_array_equal(store.stylized(1, 2), image(7, 1, 2))
        np.testing.assert_array_equal(store.stylized(0, 0), image(7, 0, 0))
        np.testing.assert_array_equal(store.source(2), image(1, 2))
    arrays[1][0].unlink()
    with pytest.raises(InputError, match=r"1\.npy it refers to is missing"):
        PairStore(pairs)


def test_image_store_knows_its_images(tmp_path):
    path = write_images(tmp_path / "s.h5", 3, "s")
    with ImageStore(path) as store:
        assert len(store) == 3
        assert store.places[2] == ImagePlace("slide 2", 2, 4)
        assert store.dataset("recolouring") is None
        np.testing.assert_array_equal(store[1], image(ord("s"), 1))
        fingerprint = store.content_sha256
    with ImageStore(write_images(tmp_path / "t.h5", 3, "t")) as other:
        assert other.content_sha256 != fingerprint


def test_damaged_image_stores_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ImageStore(tmp_path / "none.h5")
    (tmp_path / "bad.h5").write_bytes(b"not HDF5")
    with pytest.raises(InputError, match="not an intact image store"):
        ImageStore(tmp_path / "bad.h5")


def test_a_draft_goes_on_only_with_its_own_key(tmp_path):
    draft = ShardDraft(tmp_path, {"method": "a"}, 4, SHAPE, ["score"])
    draft.put(0, image(1), {"score": 1.0})
    draft.put(1, image(2), {"score": 2.0})
    draft.commit(2)
    draft.put(2, image(3), {"score": 3.0})
    again = ShardDraft(tmp_path, {"method": "a"}, 4, SHAPE, ["score"])
    assert again.finished == 2
    np.testing.assert_array_equal(again.stylized[1], image(2))
    assert ShardDraft(tmp_path, {"method": "b"}, 4, SHAPE, ["score"]).finished == 0


def test_a_draft_with_a_torn_counter_begins_anew(tmp_path):
    draft = ShardDraft(tmp_path, {}, 2, SHAPE, ["score"])
    draft.commit(1)
    (tmp_path / "finished.json").write_text('{"key"')
    assert ShardDraft(tmp_path, {}, 2, SHAPE, ["score"]).finished == 0
    draft.commit(1)
    (tmp_path / "stylized.npy").unlink()
    assert ShardDraft(tmp_path, {}, 2, SHAPE, ["score"]).finished == 0


def test_damaged_shards_are_named(tmp_path):
    (tmp_path / "t000.h5").write_bytes(b"")
    with pytest.raises(InputError, match="not an intact shard"):
        read_shard_info(tmp_path / "t000.h5")
