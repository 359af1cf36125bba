"""Cluster all tiles by tissue and by stain; sample sources over tissue, targets over stain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import atomic_path, sha256_content, sha256_file
from stainfuser.io.images import read_image
from stainfuser.io.tile_store import TileReader
from stainfuser.logs import LOGGER, progress
from stainfuser.pictures import contact_sheet, flat_patch, save_picture, split_patch
from stainfuser.seeds import generator
from stainfuser.stain.clusters import Clustering, balanced_sample
from stainfuser.stain.optical_density import od_to_rgb
from stainfuser.stain.stain_features import STAIN_FEATURES
from stainfuser.stain.target_tiles import choose_target_tiles, cut_tile
from stainfuser.stain.tile_table import (
    COLUMNS,
    assign_clusters,
    choose_roles,
    cluster_tiles,
    is_own_tissue,
    matrix,
    measure_tiles,
)
from stainfuser.stain.tissue_features import TISSUE_FEATURES, measure_slide_scale
from stainfuser.stamps import make_stamp

# Tiles of a slide that its scale is measured on, and tiles in a row of a montage.
SCALE_TILES, MONTAGE_TILES = 24, 9


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
    join the targets; they take no part in forming the clusters. Nor do tiles under ink or dirt,
    which take no role either.

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
    options = {
        "seed": seed,
        "tissue_clusters": tissue_clusters,
        "stain_clusters": stain_clusters,
        "sources": sources,
        "targets": targets,
        "tiles_per_target_image": tiles_per_target_image,
    }
    tissue, stain = cluster_tiles(tiles, tissue_clusters, stain_clusters, seed)
    _report_counts(tiles, {"tissue": tissue, "stain": stain}, options)
    tiles = choose_roles(assign_clusters(tiles, tissue, stain), sources, targets, seed)
    table = pd.concat([tiles, *(assign_clusters(image, tissue, stain) for image in images)])
    with atomic_path(assignments_path) as partial:
        table[COLUMNS].to_csv(partial, index=False, lineterminator="\n")
    read = [sha256_file(path) for path in (*tiles_paths, *target_paths)]
    stamp = make_stamp("cluster_stains", options, inputs_sha256=sha256_content(read))
    _write_centroids(centroids_path, tissue, stain, stamp)
    clean = tiles[is_own_tissue(tiles)]
    _draw_tissue(tissue_montage_path, clean, tissue, tile_set, seed)
    _draw_stain(stain_montage_path, clean, stain, tile_set, seed)


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
    """Return place and features of one slide's tiles, which are read a few at a time."""
    with TileReader(path) as reader:
        spread = np.unique(np.linspace(0, len(reader) - 1, SCALE_TILES).round().astype(int))
        scale = measure_slide_scale(reader.read(spread))
        tiles = (reader.images[row] for row in range(len(reader)))
        slide, mpp = str(reader.attrs["slide"]), float(reader.attrs["mpp"])
        return measure_tiles(slide, reader.coords, tiles, scale, mpp)


def _measure_target(path: Path, tile_set: TileSet, count: int, seed: int) -> pd.DataFrame:
    """Return place and features of `count` tiles of a target image, all of them targets."""
    image = read_image(path)
    rng = generator(seed, "target tiles", path.stem)
    corners = choose_target_tiles(image, tile_set.tile_px, count, rng)
    tiles = [cut_tile(image, int(x), int(y), tile_set.tile_px) for x, y in corners]
    scale = measure_slide_scale(np.stack(tiles or [image]))
    table = measure_tiles(f"target:{path.stem}", corners, tiles, scale, tile_set.mpp)
    return table.assign(role_source=False, role_target=True)


def _report_counts(
    tiles: pd.DataFrame, clusterings: Mapping[str, Clustering], options: Mapping[str, int]
) -> None:
    """Say where there is less than was asked for, and what was left out."""
    clean = int(is_own_tissue(tiles).sum())
    if clean < len(tiles):
        LOGGER.info(
            "%d of %d tiles show ink or dirt and take no role", len(tiles) - clean, len(tiles)
        )
    for name, clusters in clusterings.items():
        asked, found = options[f"{name}_clusters"], len(clusters.centroids)
        if found < asked:
            LOGGER.info("%d %s clusters asked for, %d tiles give %d", asked, name, clean, found)
    for role in ("sources", "targets"):
        if options[role] > clean:
            LOGGER.info("%d %s asked for, all %d tiles taken", options[role], role, clean)


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
            f"tissue {label}   {_count(len(members), 'tile')}\n"
            f"nuclei {100 * max(value['nuclear_fraction'], 0):.0f} %\n"
            f"lumen {100 * max(value['background_fraction'], 0):.0f} %\n"
            f"{_count(members.role_source.sum(), 'source')}"
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
            f"stain {label}   {_count(len(members), 'tile')}\n"
            f"{_count(members.slide.nunique(), 'slide')}\n"
            f"{_count(members.role_target.sum(), 'target')}"
        )
    title = "Stain clusters, by density of haematoxylin"
    columns = ["H over E"]
    save_picture(
        path,
        contact_sheet(rows, title=title, column_titles=columns, row_titles=titles, cell_px=120),
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


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
    distance = clusters.distances(matrix(members, names))[:, label]
    near = members[distance <= np.median(distance)]
    chosen = balanced_sample([near.slide.to_numpy()], MONTAGE_TILES, generator(seed, "montage"))
    tiles = []
    for row in near.iloc[chosen].itertuples():
        with TileReader(tile_set.paths[row.slide]) as reader:
            tiles.append(reader.images[int(row.row)])
    return tiles
