"""Cluster all tiles by tissue and by stain; sample sources over tissue, targets over stain."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path
from stainfuser.io.images import read_image
from stainfuser.io.tile_store import TileReader
from stainfuser.logs import LOGGER, progress
from stainfuser.pictures import contact_sheet, flat_patch, save_picture, split_patch
from stainfuser.seeds import derive_seed, generator
from stainfuser.stain.clusters import Clustering, balanced_sample, fit_clusters
from stainfuser.stain.optical_density import od_to_rgb
from stainfuser.stain.stain_features import (
    STAIN_FEATURES,
    STAIN_WEIGHTS,
    fill_unseen,
    stain_features,
)
from stainfuser.stain.target_tiles import choose_target_tiles, cut_tile
from stainfuser.stain.tissue_features import (
    TISSUE_FEATURES,
    measure_slide_scale,
    tissue_features,
)
from stainfuser.stamps import make_stamp

# Tiles of a slide that its scale is measured on, and tiles read at a time.
SCALE_TILES, BATCH_TILES = 24, 64
MONTAGE_TILES = 9
FEATURES = [*TISSUE_FEATURES, *STAIN_FEATURES]


@dataclass(frozen=True)
class TileSet:
    """Tile stores by slide, and the side and resolution of their tiles."""

    paths: dict[str, Path]
    tile_px: int
    mpp: float


def cluster_stains(
    *,
    tiles_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    assignments_path: str | Path,
    centroids_path: str | Path,
    tissue_montage_path: str | Path,
    stain_montage_path: str | Path,
    seed: int,
    tissue_clusters: int,
    stain_clusters: int,
    sources: int,
    targets: int,
    tiles_per_target_image: int,
    workers: int = 1,
) -> None:
    """Assign every tile a tissue and a stain cluster, and choose sources and targets of pairs.

    Two k-means clusterings: by tissue content, on features that do not depend on the stain, and
    by stain appearance. Sources are drawn evenly over tissue clusters, then slides; targets evenly
    over stain clusters, then tissue clusters. `tiles_per_target_image` tiles of each target image
    join the targets; they take no part in forming the clusters.

    Parameters
    ----------
    tiles_paths
        Tile stores; those without tiles are passed over.
    target_paths
        Target images ``<name>.png``; may be empty.
    tissue_clusters, stain_clusters
        Numbers of clusters; fewer where there are fewer different tiles.
    sources, targets
        Tiles to choose; all of them where there are fewer.
    workers
        Processes that measure slides; they do not change the result.

    Raises
    ------
    InputError
        No slide has a tile, or tile stores differ in side or resolution.
    """
    tile_set = _open_tile_set(tiles_paths)
    tiles = _measure_slides(tile_set, workers)
    images = [
        _measure_target(Path(path), tile_set, tiles_per_target_image, seed) for path in target_paths
    ]
    tissue = fit_clusters(
        _matrix(tiles, TISSUE_FEATURES), tissue_clusters, derive_seed(seed, "tissue clusters")
    )
    stain = fit_clusters(
        _matrix(tiles, STAIN_FEATURES),
        stain_clusters,
        derive_seed(seed, "stain clusters"),
        weights=STAIN_WEIGHTS,
    )
    _report_counts(tiles, tissue, stain, tissue_clusters, stain_clusters)
    tiles = _choose_roles(_with_clusters(tiles, tissue, stain), sources, targets, seed)
    table = pd.concat([tiles, *(_with_clusters(image, tissue, stain) for image in images)])
    options = {
        "seed": seed,
        "tissue_clusters": tissue_clusters,
        "stain_clusters": stain_clusters,
        "sources": sources,
        "targets": targets,
        "tiles_per_target_image": tiles_per_target_image,
    }
    _write_assignments(assignments_path, table)
    _write_centroids(centroids_path, tissue, stain, make_stamp("cluster_stains", options))
    _draw_tissue(tissue_montage_path, tiles, tissue, tile_set, seed)
    _draw_stain(stain_montage_path, tiles, stain, tile_set, seed)


def _open_tile_set(tiles_paths: Sequence[str | Path]) -> TileSet:
    """Return the stores that hold tiles; all must be of one side and resolution."""
    paths, kinds = {}, set()
    for path in map(Path, tiles_paths):
        with TileReader(path) as reader:
            if not len(reader):
                LOGGER.info("%s has no tile and is passed over", reader.attrs["slide"])
                continue
            kinds.add((int(reader.attrs["tile_px"]), float(reader.attrs["mpp"])))
            paths[str(reader.attrs["slide"])] = path
    if not paths:
        remedy = "lower tiles.min_tissue_fraction, or give slides with more tissue"
        raise InputError("tiles", f"none of {len(tiles_paths)} slides has a tile", remedy)
    if len(kinds) > 1:
        wrong = f"tiles of different side or resolution: {', '.join(map(str, sorted(kinds)))}"
        raise InputError("tiles", wrong, "delete results/tiles and run again")
    return TileSet(paths, *kinds.pop())


def _measure_slides(tile_set: TileSet, workers: int) -> pd.DataFrame:
    paths = list(tile_set.paths.values())
    if workers > 1 and len(paths) > 1:
        with ProcessPoolExecutor(min(workers, len(paths))) as pool:
            measured = pool.map(_measure_slide, paths)
            tables = list(progress(measured, "measuring slides", len(paths)))
    else:
        tables = [_measure_slide(path) for path in progress(paths, "measuring slides")]
    return pd.concat(tables, ignore_index=True)


def _measure_slide(path: Path) -> pd.DataFrame:
    """Return the features of one slide's tiles, one row per tile."""
    with TileReader(path) as reader:
        spread = np.unique(np.linspace(0, len(reader) - 1, SCALE_TILES).round().astype(int))
        scale = measure_slide_scale(reader.read(spread))
        mpp = float(reader.attrs["mpp"])
        rows = []
        for start in range(0, len(reader), BATCH_TILES):
            for tile in reader.images[start : start + BATCH_TILES]:
                features = tissue_features(tile, scale, mpp), stain_features(tile)
                rows.append(np.concatenate(features))
        return _table(str(reader.attrs["slide"]), reader.coords, np.array(rows))


def _measure_target(path: Path, tile_set: TileSet, count: int, seed: int) -> pd.DataFrame:
    """Return the features of `count` tiles of a target image, all of them targets."""
    image = read_image(path)
    corners = choose_target_tiles(
        image, tile_set.tile_px, count, generator(seed, "target tiles", path.stem)
    )
    tiles = [cut_tile(image, int(x), int(y), tile_set.tile_px) for x, y in corners]
    if not tiles:
        return _table(f"target:{path.stem}", corners, np.zeros((0, len(FEATURES))))
    scale = measure_slide_scale(np.stack(tiles))
    rows = [
        np.concatenate([tissue_features(t, scale, tile_set.mpp), stain_features(t)]) for t in tiles
    ]
    table = _table(f"target:{path.stem}", corners, np.array(rows))
    return table.assign(role_source=False, role_target=True)


def _table(slide: str, corners: NDArray[np.int64], features: NDArray[np.float64]) -> pd.DataFrame:
    """Return one row per tile of a slide; `features` are (N, F) in the order of `FEATURES`."""
    stain = fill_unseen(features[:, len(TISSUE_FEATURES) :])
    features = np.hstack([features[:, : len(TISSUE_FEATURES)], stain])
    columns = {"row": np.arange(len(corners)), "x": corners[:, 0], "y": corners[:, 1]}
    table = pd.DataFrame({"slide": slide, **columns})
    # Rounded so that the last bits of a sum, which differ between machines, reach no later stage.
    return table.join(pd.DataFrame(features.round(6), columns=FEATURES))


def _matrix(table: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    return table[list(names)].to_numpy(np.float64)


def _with_clusters(table: pd.DataFrame, tissue: Clustering, stain: Clustering) -> pd.DataFrame:
    return table.assign(
        tissue_cluster=tissue.assign(_matrix(table, TISSUE_FEATURES)),
        stain_cluster=stain.assign(_matrix(table, STAIN_FEATURES)),
    )


def _choose_roles(tiles: pd.DataFrame, sources: int, targets: int, seed: int) -> pd.DataFrame:
    keys = {name: tiles[name].to_numpy() for name in ("tissue_cluster", "stain_cluster", "slide")}
    chosen = {}
    for role, count, order in (
        ("source", sources, ("tissue_cluster", "slide")),
        ("target", targets, ("stain_cluster", "tissue_cluster", "slide")),
    ):
        if count > len(tiles):
            LOGGER.info("%d %ss asked for, all %d tiles taken", count, role, len(tiles))
        rows = balanced_sample([keys[key] for key in order], count, generator(seed, role))
        chosen[f"role_{role}"] = np.isin(np.arange(len(tiles)), rows)
    return tiles.assign(**chosen)


def _report_counts(tiles: pd.DataFrame, tissue: Clustering, stain: Clustering, *asked: int) -> None:
    for name, clusters, count in zip(("tissue", "stain"), (tissue, stain), asked, strict=True):
        if len(clusters.centroids) < count:
            found = len(clusters.centroids)
            LOGGER.info(
                "%d %s clusters asked for, %d tiles give %d", count, name, len(tiles), found
            )


def _write_assignments(path: str | Path, table: pd.DataFrame) -> None:
    first = [
        "slide",
        "row",
        "x",
        "y",
        "tissue_cluster",
        "stain_cluster",
        "role_source",
        "role_target",
    ]
    with atomic_path(path) as partial:
        table[[*first, *FEATURES]].to_csv(partial, index=False, lineterminator="\n")


def _write_centroids(
    path: str | Path, tissue: Clustering, stain: Clustering, stamp: dict[str, str]
) -> None:
    """Write both clusterings; `np.savez` stores no time of its own."""
    arrays = {
        f"{name}_{part}": getattr(clusters, part)
        for name, clusters in (("tissue", tissue), ("stain", stain))
        for part in ("mean", "std", "weights", "centroids")
    }
    names = {
        "tissue_features": np.array(TISSUE_FEATURES),
        "stain_features": np.array(STAIN_FEATURES),
    }
    with atomic_path(path) as partial:
        np.savez(partial, **arrays, **names, **{key: np.array(text) for key, text in stamp.items()})


def _draw_tissue(
    path: str | Path, tiles: pd.DataFrame, clusters: Clustering, tile_set: TileSet, seed: int
) -> None:
    rows, titles = [], []
    for label, means in enumerate(clusters.feature_means()):
        members = tiles[tiles.tissue_cluster == label]
        rows.append(_examples(members, TISSUE_FEATURES, clusters, label, tile_set, seed))
        value = dict(zip(TISSUE_FEATURES, means, strict=True))
        titles.append(
            f"tissue {label}   {len(members)} tiles\n"
            f"nuclei {100 * max(value['nuclear_fraction'], 0):.0f} %\n"
            f"lumen {100 * max(value['background_fraction'], 0):.0f} %\n"
            f"{int(members.role_source.sum())} sources"
        )
    title = "Tissue clusters, by nuclear density"
    save_picture(path, contact_sheet(rows, title=title, row_titles=titles, cell_px=120))


def _draw_stain(
    path: str | Path, tiles: pd.DataFrame, clusters: Clustering, tile_set: TileSet, seed: int
) -> None:
    rows, titles = [], []
    for label, means in enumerate(clusters.feature_means()):
        members = tiles[tiles.stain_cluster == label]
        swatch = split_patch(od_to_rgb(means[:6].reshape(2, 3)), 120)
        examples = _examples(members, STAIN_FEATURES, clusters, label, tile_set, seed)
        rows.append([swatch, *examples])
        titles.append(
            f"stain {label}   {len(members)} tiles\n"
            f"{members.slide.nunique()} slides\n"
            f"{int(members.role_target.sum())} targets"
        )
    title = "Stain clusters, by density of haematoxylin"
    columns = ["H over E"]
    save_picture(
        path,
        contact_sheet(rows, title=title, column_titles=columns, row_titles=titles, cell_px=120),
    )


def _examples(
    members: pd.DataFrame,
    names: Sequence[str],
    clusters: Clustering,
    label: int,
    tile_set: TileSet,
    seed: int,
) -> list[NDArray[np.uint8]]:
    """Return tiles of a cluster: the half nearest its centroid, spread over slides."""
    if members.empty:
        return [flat_patch((245, 245, 245))]
    distance = clusters.distances(_matrix(members, names))[:, label]
    near = members[distance <= np.median(distance)]
    chosen = balanced_sample([near.slide.to_numpy()], MONTAGE_TILES, generator(seed, "montage"))
    tiles = []
    for row in near.iloc[chosen].itertuples():
        with TileReader(tile_set.paths[row.slide]) as reader:
            tiles.append(reader.images[int(row.row)])
    return tiles
