from __future__ import annotations

import logging

import numpy as np
import pytest
from pair_stages import SLIDES, Workspace
from PIL import Image

from painted_tiles import paint_tile, write_tiles
from stainfuser.errors import InputError


def test_every_tile_is_assigned_and_roles_are_counted(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add_target("référence", 150)
    table = workspace.cluster()
    assert (table.groupby("slide").size()[list(SLIDES)] == 6).all()
    of_slides = table[table.slide.isin(SLIDES)]
    assert of_slides.role_source.sum() == 9
    assert of_slides.role_target.sum() == 4
    target = table[table.slide == "target:référence"]
    assert len(target) == 2
    assert target.role_target.all()
    assert not target.role_source.any()
    assert set(table.tissue_cluster) <= {0, 1, 2}
    assert (of_slides.x == 64 * of_slides.row).all()


def test_stain_clusters_are_laboratories_and_tissue_clusters_are_not(tmp_path):
    table = Workspace(tmp_path).cluster()
    assert (table.groupby("slide").stain_cluster.nunique() == 1).all()
    assert table.stain_cluster.nunique() == 3
    assert (table.groupby("tissue_cluster").slide.nunique() == 3).all()
    by_tissue = table.groupby("tissue_cluster").nuclear_fraction.mean()
    assert by_tissue.is_monotonic_increasing


def test_a_target_image_falls_into_the_cluster_of_its_laboratory(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.add_target("blue one")
    table = workspace.cluster().set_index("slide")
    ours = table.loc["blauer Schnitt ß"].stain_cluster.iloc[0]
    assert (table.loc["target:blue one"].stain_cluster == ours).all()


def test_sources_cover_tissue_and_targets_cover_stain(tmp_path):
    table = Workspace(tmp_path).cluster(sources=6, targets=3)
    sources, targets = table[table.role_source], table[table.role_target]
    assert sources.tissue_cluster.value_counts().tolist() == [2, 2, 2]
    assert targets.stain_cluster.nunique() == 3


def test_same_seed_same_bytes_whatever_the_workers(tmp_path):
    names = ["assignments.csv", "centroids.npz", "tissue_montage.png", "stain_montage.png"]
    contents = []
    for folder, seed, workers in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        workspace = Workspace(tmp_path / folder)
        workspace.cluster(seed=seed, workers=workers)
        contents.append([(workspace.path("clusters") / name).read_bytes() for name in names])
    assert contents[0] == contents[1]
    assert contents[0][0] != contents[2][0]


def test_centroids_carry_names_and_stamp_without_paths(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.cluster()
    path = workspace.path("clusters/centroids.npz")
    with np.load(path) as centroids:
        assert centroids["tissue_centroids"].shape == (3, len(centroids["tissue_features"]))
        assert centroids["stain_centroids"].shape == (3, len(centroids["stain_features"]))
        assert str(centroids["rule"]) == "cluster_stains"
    assert str(tmp_path).encode() not in path.read_bytes()


def test_montages_have_a_row_per_cluster(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.cluster()
    for name in ("tissue", "stain"):
        with Image.open(workspace.path(f"clusters/{name}_montage.png")) as picture:
            assert picture.height > 3 * 120
            assert picture.width > 5 * 120


@pytest.mark.parametrize("tiles", [1, 2])
def test_one_slide_with_fewer_tiles_than_clusters(tmp_path, tiles, caplog):
    workspace = Workspace(tmp_path, {"only": "violet"}, tiles)
    with caplog.at_level(logging.INFO, "stainfuser"):
        table = workspace.cluster()
    assert len(table) == tiles
    assert table.role_source.all()
    assert table.role_target.all()
    assert f"3 tissue clusters asked for, {tiles} tiles give {tiles}" in caplog.text
    assert f"9 sources asked for, all {tiles} tiles taken" in caplog.text


def test_identical_tiles_make_one_cluster(tmp_path):
    workspace = Workspace(tmp_path, {"only": "violet"}, 1)
    workspace.tiles = [write_tiles(tmp_path / "tiles/same.h5", "same", [paint_tile(1)] * 5)]
    assert workspace.cluster().tissue_cluster.eq(0).all()


def test_a_slide_without_tiles_is_passed_over(tmp_path, caplog):
    workspace = Workspace(tmp_path, {"only": "violet"}, 4)
    workspace.tiles.append(write_tiles(tmp_path / "tiles/empty.h5", "empty", []))
    with caplog.at_level(logging.INFO, "stainfuser"):
        table = workspace.cluster()
    assert set(table.slide) == {"only"}
    assert "empty has no tile" in caplog.text


def test_no_tiles_at_all_is_an_error_with_a_remedy(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.tiles = [write_tiles(tmp_path / "tiles/empty.h5", "empty", [])]
    with pytest.raises(InputError, match=r"none of 1 slides has a tile; lower tiles\.min_tissue"):
        workspace.cluster()
    workspace.tiles = []
    with pytest.raises(InputError, match="none of 0 slides"):
        workspace.cluster()


def test_stores_of_different_resolution_are_refused(tmp_path):
    workspace = Workspace(tmp_path, {"only": "violet"}, 2)
    other = write_tiles(tmp_path / "tiles/other.h5", "other", [paint_tile(1)], mpp=0.25)
    workspace.tiles.append(other)
    with pytest.raises(InputError, match="different side or resolution"):
        workspace.cluster()


def test_blank_tiles_do_no_harm(tmp_path):
    workspace = Workspace(tmp_path, {"only": "violet"}, 3)
    blank = np.full((64, 64, 3), 255, np.uint8)
    workspace.tiles.append(write_tiles(tmp_path / "tiles/blank.h5", "blank", [blank, blank]))
    table = workspace.cluster()
    assert np.isfinite(table.select_dtypes("number").to_numpy()).all()


def test_pen_marks_take_no_role_and_make_no_cluster(tmp_path, caplog):
    workspace = Workspace(tmp_path, {"only": "violet"}, 6)
    pen = paint_tile(5)
    pen[:40] = (70, 75, 80)
    green = paint_tile(6)
    green[:40] = (60, 140, 90)
    workspace.tiles.append(write_tiles(tmp_path / "tiles/inked.h5", "inked", [pen, green]))
    with caplog.at_level(logging.INFO, "stainfuser"):
        table = workspace.cluster(sources=8, targets=8)
    inked = table[table.slide == "inked"]
    assert (inked.foreign_fraction > 0.4).all()
    assert not inked.role_source.any()
    assert not inked.role_target.any()
    assert (table[table.slide == "only"].foreign_fraction < 0.01).all()
    assert "2 of 8 tiles show ink or dirt" in caplog.text


def test_slides_of_ink_alone_are_still_handled(tmp_path):
    grey = np.random.default_rng(1).integers(60, 120, (64, 64, 1)).repeat(3, axis=2)
    workspace = Workspace(tmp_path, {"only": "violet"}, 1)
    tiles = [grey.astype(np.uint8), grey[::-1].astype(np.uint8)]
    workspace.tiles = [write_tiles(tmp_path / "tiles/grey.h5", "grey", tiles)]
    assert workspace.cluster().role_source.all()
