from __future__ import annotations

import os
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from pair_stages import Workspace

from stainfuser.errors import InputError
from stainfuser.io.pair_store import PairStore


@pytest.fixture(scope="module")
def transferred(tmp_path_factory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("pairs") / "results")
    workspace.cluster(targets=3)
    for name in workspace.plan().shard.unique():
        workspace.transfer(name)
    return workspace


@pytest.fixture
def workspace(transferred, tmp_path) -> Workspace:
    """Return a copy that a test may damage."""
    shutil.copytree(transferred.root, tmp_path / "results")
    copy = Workspace.__new__(Workspace)
    copy.root, copy.tiles, copy.targets = tmp_path / "results", [], []
    return copy


def test_pairs_are_those_of_the_plan(workspace):
    plan = pd.read_csv(workspace.path("pairs/plan.csv"))
    with PairStore(workspace.merge()) as store:
        planned = {(store.target_ids[t], store.source_ids[s]) for t, s in store.pairs}
        assert planned == set(zip(plan.target, plan.source, strict=True))
        assert store.mpp == 0.5
        with h5py.File(workspace.path("pairs/stylized/t002.h5")) as shard:
            source = shard["source_index"][3]
            np.testing.assert_array_equal(store.stylized(2, source), shard["stylized"][3])


def test_scores_have_a_row_per_pair(workspace):
    workspace.merge()
    scores = pd.read_csv(workspace.path("pairs/scores.csv"))
    plan = pd.read_csv(workspace.path("pairs/plan.csv"))
    assert scores[["source", "target"]].equals(plan[["source", "target"]])
    assert list(scores.columns) == [
        "target",
        "source",
        "gradient_correlation",
        "sliced_wasserstein",
        "source_delta_e",
        "style_distance",
    ]
    assert scores.notna().all(axis=None)


def test_merging_repeats_and_names_no_folder(workspace, tmp_path):
    first = workspace.merge().read_bytes()
    assert workspace.merge().read_bytes() == first
    assert str(tmp_path).encode() not in first


def test_a_shard_of_other_images_is_refused(workspace):
    with h5py.File(workspace.path("pairs/stylized/t001.h5"), "r+") as shard:
        shard.attrs["sources_sha256"] = "0" * 64
    with pytest.raises(InputError, match=r"t001\.h5: the shard was made from another plan"):
        workspace.merge()


def test_a_shard_of_another_plan_is_refused(workspace):
    plan = workspace.path("pairs/plan.csv")
    lines = plan.read_text().splitlines()
    plan.write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(InputError, match="delete it and run transfer_style again"):
        workspace.merge()


def test_a_damaged_shard_is_named(workspace):
    os.truncate(workspace.path("pairs/stylized/t001.h5"), 3000)
    with pytest.raises(InputError, match=r"t001\.h5: not an intact shard"):
        workspace.merge()


def test_a_missing_shard_is_named(workspace):
    workspace.path("pairs/stylized/t000.h5").rename(workspace.path("t000.h5"))
    with pytest.raises(InputError, match=r"t000\.h5"):
        workspace.merge()
