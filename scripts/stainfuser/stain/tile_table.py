"""Tables of tiles: features, clusters and roles, one row per tile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stainfuser.seeds import derive_seed, generator
from stainfuser.stain.clusters import Clustering, balanced_sample, fit_clusters
from stainfuser.stain.stain_features import (
    STAIN_FEATURES,
    STAIN_WEIGHTS,
    fill_unseen,
    stain_features,
)
from stainfuser.stain.tissue_features import (
    TISSUE_FEATURES,
    SlideScale,
    foreign_fraction,
    tissue_features,
)

# Tiles with more of their tissue under ink, pen or dirt form no clusters and take no role.
MAX_FOREIGN_FRACTION = 0.02
PLACE_COLUMNS = ("slide", "row", "x", "y")
ROLE_COLUMNS = ("tissue_cluster", "stain_cluster", "role_source", "role_target")
COLUMNS = [
    *PLACE_COLUMNS,
    *ROLE_COLUMNS,
    "foreign_fraction",
    *TISSUE_FEATURES,
    *STAIN_FEATURES,
]
# Roles and the labels they are drawn evenly over, the most important first.
ROLE_KEYS = {
    "source": ("tissue_cluster", "slide"),
    "target": ("stain_cluster", "tissue_cluster", "slide"),
}


def measure_tiles(
    slide: str,
    corners: NDArray[np.int64],
    tiles: Iterable[NDArray[np.uint8]],
    scale: SlideScale,
    mpp: float,
) -> pd.DataFrame:
    """Return place and features of the tiles of one slide.

    Parameters
    ----------
    corners
        (N, 2) int64 top left corners, x then y.
    tiles
        N tiles (S, S, 3) uint8 RGB, in the same order.
    scale
        How the slide is stained (`measure_slide_scale`).
    mpp
        Resolution of the tiles, um per px.
    """
    measured = [
        (foreign_fraction(tile, scale), *tissue_features(tile, scale, mpp), *stain_features(tile))
        for tile in tiles
    ]
    names = ["foreign_fraction", *TISSUE_FEATURES, *STAIN_FEATURES]
    features = np.array(measured, np.float64).reshape(-1, len(names))
    stain = slice(1 + len(TISSUE_FEATURES), None)
    features[:, stain] = fill_unseen(features[:, stain])
    places = {"row": np.arange(len(corners)), "x": corners[:, 0], "y": corners[:, 1]}
    table = pd.DataFrame({"slide": slide, **places})
    # Rounded so that the last bits of a sum, which differ between machines, reach no later stage.
    return table.join(pd.DataFrame(features.round(6), columns=names))


def matrix(table: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """Return columns as (N, len(names)) float64."""
    return table[list(names)].to_numpy(np.float64)


def is_own_tissue(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return which tiles are free of ink, (N,) bool; all of them if none is."""
    clean = (table.foreign_fraction <= MAX_FOREIGN_FRACTION).to_numpy()
    return clean if clean.any() else np.ones(len(table), bool)


def cluster_tiles(
    table: pd.DataFrame, tissue_clusters: int, stain_clusters: int, seed: int
) -> tuple[Clustering, Clustering]:
    """Return the clusterings by tissue, from low to high nuclear density, and by stain."""
    clean = table[is_own_tissue(table)]
    tissue = fit_clusters(
        matrix(clean, TISSUE_FEATURES), tissue_clusters, derive_seed(seed, "tissue clusters")
    )
    stain = fit_clusters(
        matrix(clean, STAIN_FEATURES),
        stain_clusters,
        derive_seed(seed, "stain clusters"),
        weights=STAIN_WEIGHTS,
    )
    return tissue, stain


def assign_clusters(table: pd.DataFrame, tissue: Clustering, stain: Clustering) -> pd.DataFrame:
    """Return `table` with the columns `tissue_cluster` and `stain_cluster`."""
    return table.assign(
        tissue_cluster=tissue.assign(matrix(table, TISSUE_FEATURES)),
        stain_cluster=stain.assign(matrix(table, STAIN_FEATURES)),
    )


def choose_roles(table: pd.DataFrame, sources: int, targets: int, seed: int) -> pd.DataFrame:
    """Return `table` with the columns `role_source` and `role_target` (see `ROLE_KEYS`)."""
    candidates = np.flatnonzero(is_own_tissue(table))
    chosen = {}
    for role, count in (("source", sources), ("target", targets)):
        keys = [table[key].to_numpy()[candidates] for key in ROLE_KEYS[role]]
        rows = candidates[balanced_sample(keys, count, generator(seed, role))]
        chosen[f"role_{role}"] = np.isin(np.arange(len(table)), rows)
    return table.assign(**chosen)
