"""The stages from tiles to pairs, run on small painted slides."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from painted_tiles import paint_tile, write_tiles
from stainfuser.io.images import write_image
from stainfuser.stages.cluster_stains import cluster_stains
from stainfuser.stages.merge_pairs import merge_pairs
from stainfuser.stages.plan_pairs import plan_pairs
from stainfuser.stages.transfer_style import transfer_style

CLUSTER_OPTIONS = {
    "tissue_clusters": 3,
    "stain_clusters": 3,
    "sources": 9,
    "targets": 4,
    "tiles_per_target_image": 2,
}
TRANSFER_OPTIONS = {
    "method": "class_guided",
    "feature_weights": None,
    "feature_network": "squeezenet",
    "allow_random_weights": False,
    "optimizer": "adam",
    "iterations": 2,
    "content_weight": 1.0,
    "style_weight": 1.0,
}
SLIDES = {"violet one": "violet", "blauer Schnitt ß": "blue", "it's pale": "pale"}


class Workspace:
    """A results folder with painted slides; each stage's method runs it with small options."""

    def __init__(self, root: Path, slides: dict[str, str] | None = None, tiles: int = 6) -> None:
        self.root = root
        self.tiles = [
            self.add_slide(name, laboratory, range(100 * number, 100 * number + tiles))
            for number, (name, laboratory) in enumerate((slides or SLIDES).items())
        ]
        self.targets: list[Path] = []

    def add_slide(self, name: str, laboratory: str, seeds: Iterable[int]) -> Path:
        tiles = [
            paint_tile(seed, laboratory, nuclear_fraction=0.05 + 0.1 * (i % 3), lumen=i % 4 == 3)
            for i, seed in enumerate(seeds)
        ]
        return write_tiles(self.root / "tiles" / f"{name}.h5", name, tiles)

    def add_target(self, name: str, side_px: int = 150) -> None:
        path = self.root / "targets" / f"{name}.png"
        write_image(path, paint_tile(999, "blue", side_px))
        self.targets.append(path)

    def path(self, name: str) -> Path:
        return self.root / name

    def cluster(self, seed: int = 1, workers: int = 1, **options: Any) -> pd.DataFrame:
        cluster_stains(
            tiles_paths=self.tiles,
            target_paths=self.targets,
            assignments_path=self.path("clusters/assignments.csv"),
            centroids_path=self.path("clusters/centroids.npz"),
            tissue_montage_path=self.path("clusters/tissue_montage.png"),
            stain_montage_path=self.path("clusters/stain_montage.png"),
            seed=seed,
            workers=workers,
            **{**CLUSTER_OPTIONS, **options},
        )
        return pd.read_csv(self.path("clusters/assignments.csv"))

    def plan(self, method: str = "class_guided", sources_per_target: int = 5) -> pd.DataFrame:
        plan_pairs(
            assignments_path=self.path("clusters/assignments.csv"),
            tiles_paths=self.tiles,
            target_paths=self.targets,
            plan_path=self.path("pairs/plan.csv"),
            sources_path=self.path("pairs/sources.h5"),
            targets_path=self.path("pairs/targets.h5"),
            seed=1,
            method=method,
            sources_per_target=sources_per_target,
        )
        return pd.read_csv(self.path("pairs/plan.csv"))

    def transfer(self, pair_target: str = "t000", **options: Any) -> Path:
        transfer_style(
            pair_target=pair_target,
            plan_path=self.path("pairs/plan.csv"),
            sources_path=self.path("pairs/sources.h5"),
            targets_path=self.path("pairs/targets.h5"),
            shard_path=self.path(f"pairs/stylized/{pair_target}.h5"),
            sheet_path=self.path(f"pairs/sheets/{pair_target}.jpg"),
            work_dir=self.path(f"work/{pair_target}"),
            seed=1,
            **{**TRANSFER_OPTIONS, **options},
        )
        return self.path(f"pairs/stylized/{pair_target}.h5")

    def merge(self) -> Path:
        plan = pd.read_csv(self.path("pairs/plan.csv"))
        merge_pairs(
            plan_path=self.path("pairs/plan.csv"),
            sources_path=self.path("pairs/sources.h5"),
            targets_path=self.path("pairs/targets.h5"),
            shard_paths=[self.path(f"pairs/stylized/{n}.h5") for n in plan.shard.unique()],
            pairs_path=self.path("pairs/pairs.h5"),
            scores_path=self.path("pairs/scores.csv"),
        )
        return self.path("pairs/pairs.h5")
