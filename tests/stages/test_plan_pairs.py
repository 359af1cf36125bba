from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pair_stages import SLIDES, Workspace

from stainfuser.errors import InputError
from stainfuser.io.image_store import ImageStore
from stainfuser.io.tile_store import TileReader
from stainfuser.stain.metrics import ciede2000
from stainfuser.stain.recolouring import Recolouring


def stores(workspace: Workspace) -> tuple[ImageStore, ImageStore]:
    return (
        ImageStore(workspace.path("pairs/sources.h5")),
        ImageStore(workspace.path("pairs/targets.h5")),
    )


def original(workspace: Workspace, slide: str, x_px: int) -> np.ndarray:
    with TileReader(workspace.path(f"tiles/{slide}.h5")) as reader:
        return reader.images[x_px // 64]


def test_plan_and_images_belong_together(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add_target("mine")
    workspace.cluster()
    plan = workspace.plan()
    sources, targets = stores(workspace)
    assert set(plan.source) == set(sources.ids)
    assert list(plan.shard.unique()) == targets.ids == [f"t{i:03d}" for i in range(6)]
    assert (plan.shard == plan.target).all()
    assert (plan.groupby("target").size() == 5).all()
    assert not plan.duplicated().any()
    assert [place.slide for place in targets.places].count("target:mine") == 2
    for index, place in enumerate(sources.places):
        np.testing.assert_array_equal(sources[index], original(workspace, place.slide, place.x_px))
    assert float(sources.attrs["mpp"]) == 0.5
    assert str(tmp_path).encode() not in workspace.path("pairs/sources.h5").read_bytes()


def test_sources_are_of_similar_composition(tmp_path):
    workspace = Workspace(tmp_path, tiles=12)
    table = workspace.cluster(sources=36, targets=4)
    plan = workspace.plan(sources_per_target=6)
    sources, targets = stores(workspace)
    nuclei = {(row.slide, row.x): row.nuclear_fraction for row in table.itertuples()}
    of = {
        name: nuclei[place.slide, place.x_px]
        for store in (sources, targets)
        for name, place in zip(store.ids, store.places, strict=True)
    }
    chosen = np.abs(plan.source.map(of) - plan.target.map(of))
    all_pairs = [abs(of[s] - of[t]) for s in sources.ids for t in targets.ids]
    assert chosen.mean() < 0.4 * np.mean(all_pairs)


def test_a_tile_is_not_its_own_target(tmp_path):
    workspace = Workspace(tmp_path, {"only": "violet"}, 5)
    workspace.cluster(sources=5, targets=5)
    plan = workspace.plan(sources_per_target=99)
    sources, targets = stores(workspace)
    place = dict(zip(sources.ids, sources.places, strict=True))
    target_place = dict(zip(targets.ids, targets.places, strict=True))
    assert (plan.groupby("target").size() == 4).all()
    assert all(place[r.source] != target_place[r.target] for r in plan.itertuples())


def test_exact_pairs_stay_within_a_slide(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add_target("mine")
    workspace.cluster()
    plan = workspace.plan(method="recolour")
    sources, targets = stores(workspace)
    slide_of = {
        name: place.slide
        for store in (sources, targets)
        for name, place in zip(store.ids, store.places, strict=True)
    }
    assert (plan.source.map(slide_of) == plan.target.map(slide_of)).all()
    assert set(plan.target.map(slide_of)) <= set(SLIDES)
    looks = targets.dataset("recolouring")
    for index, place in enumerate(targets.places):
        tile = original(workspace, place.slide, place.x_px)
        recoloured = Recolouring.from_vector(looks[index])(tile)
        np.testing.assert_array_equal(recoloured, targets[index])
        assert ciede2000(tile, recoloured) > 1


@pytest.mark.parametrize("method", ["class_guided", "recolour"])
def test_plans_repeat(tmp_path, method):
    contents = []
    for name in ("a", "b"):
        workspace = Workspace(tmp_path / name)
        workspace.cluster()
        workspace.plan(method=method)
        files = ("plan.csv", "sources.h5", "targets.h5")
        contents.append([workspace.path(f"pairs/{file}").read_bytes() for file in files])
    assert contents[0] == contents[1]


def test_one_tile_cannot_be_paired(tmp_path):
    workspace = Workspace(tmp_path, {"only": "violet"}, 1)
    workspace.cluster()
    with pytest.raises(InputError, match="no target has a source"):
        workspace.plan()


def test_one_tile_and_a_target_image_can(tmp_path):
    workspace = Workspace(tmp_path, {"only": "violet"}, 1)
    workspace.add_target("mine", 40)
    workspace.cluster()
    plan = workspace.plan()
    assert plan.to_dict("records") == [{"source": "s0000", "target": "t000", "shard": "t000"}]
    assert stores(workspace)[1][0].shape == (64, 64, 3)


def test_assignments_of_other_tiles_are_refused(tmp_path):
    workspace = Workspace(tmp_path)
    table = workspace.cluster()
    table.assign(row=table.row + 50).to_csv(workspace.path("clusters/assignments.csv"), index=False)
    with pytest.raises(InputError, match="which is not there; run cluster_stains again"):
        workspace.plan()


def test_a_broken_table_is_named(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.path("clusters").mkdir()
    workspace.path("clusters/assignments.csv").write_text("")
    with pytest.raises(InputError, match=r"assignments\.csv: not a readable table"):
        workspace.plan()


def test_slides_called_like_missing_values_or_numbers_stay_texts(tmp_path):
    workspace = Workspace(tmp_path, {"NA": "violet", "007": "blue"}, 4)
    workspace.cluster()
    workspace.plan()
    assert {place.slide for place in stores(workspace)[0].places} == {"NA", "007"}


def test_plan_is_a_plain_table(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.cluster()
    workspace.plan()
    first = workspace.path("pairs/plan.csv").read_text().splitlines()[0]
    assert first == "source,target,shard"
    assert pd.read_csv(workspace.path("pairs/plan.csv")).source.str.fullmatch(r"s\d{4}").all()
