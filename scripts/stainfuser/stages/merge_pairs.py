"""Join the shards of all targets to one file of pairs and one table of scores."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from stainfuser.errors import InputError
from stainfuser.files import atomic_path
from stainfuser.io.image_store import ImageStore
from stainfuser.io.pair_store import write_pair_views
from stainfuser.io.shards import ShardInfo, read_shard_info
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp


def merge_pairs(
    *,
    plan_path: str | Path,
    sources_path: str | Path,
    targets_path: str | Path,
    shard_paths: Sequence[str | Path],
    pairs_path: str | Path,
    scores_path: str | Path,
) -> None:
    """Write `pairs.h5`, views on the sources, targets and shards, and `scores.csv`, a row per pair.

    Parameters
    ----------
    shard_paths
        One shard ``<target>.h5`` per target, in any order.

    Raises
    ------
    InputError
        A shard is missing, damaged, or was made from another plan or other images.
    """
    by_name = {Path(path).stem: Path(path) for path in shard_paths}
    with ImageStore(sources_path) as sources, ImageStore(targets_path) as targets:
        missing = [name for name in targets.ids if name not in by_name]
        if missing:
            raise InputError(plan_path, f"no shard of target {missing[0]}", "run transfer_style")
        planned = _read_plan(plan_path)
        shards = {name: read_shard_info(by_name[name]) for name in targets.ids}
        for name, shard in shards.items():
            _check_shard(by_name[name], shard, planned.get(name, []), sources, targets)
        method_stamp = shards[targets.ids[0]].attrs
        write_pair_views(
            pairs_path,
            sources_path=sources_path,
            targets_path=targets_path,
            shard_paths=[by_name[name] for name in targets.ids],
            source_indices=[shards[name].source_index for name in targets.ids],
            source_ids=sources.ids,
            target_ids=targets.ids,
            image_shape=shards[targets.ids[0]].image_shape,
            attributes={
                **make_stamp(
                    "merge_pairs",
                    {},
                    sources_sha256=sources.content_sha256,
                    targets_sha256=targets.content_sha256,
                    shards_config=str(method_stamp["config"]),
                ),
                "mpp": float(sources.attrs["mpp"]),
            },
        )
        _write_scores(scores_path, shards, sources.ids)
    LOGGER.info("%d pairs", sum(len(shard.source_index) for shard in shards.values()))


def _read_plan(path: str | Path) -> dict[str, list[str]]:
    """Return target → names of its sources."""
    planned: dict[str, list[str]] = {}
    with open(path, encoding="utf-8", newline="") as handle:
        for row in csv.DictReader(handle):
            planned.setdefault(row["target"], []).append(row["source"])
    return planned


def _check_shard(
    path: Path, shard: ShardInfo, planned: list[str], sources: ImageStore, targets: ImageStore
) -> None:
    names = [sources.ids[i] for i in shard.source_index if i < len(sources)]
    of_images = shard.attrs.get("sources_sha256"), shard.attrs.get("targets_sha256")
    if names != planned or of_images != (sources.content_sha256, targets.content_sha256):
        wrong = "the shard was made from another plan or other images"
        raise InputError(path, wrong, "delete it and run transfer_style again")


def _write_scores(
    path: str | Path, shards: dict[str, ShardInfo], source_ids: Sequence[str]
) -> None:
    score_names = list(next(iter(shards.values())).scores)
    with atomic_path(path) as partial, open(partial, "w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["target", "source", *score_names])
        for target, shard in shards.items():
            columns = [shard.scores[name] for name in score_names]
            for index, *values in zip(shard.source_index, *columns, strict=True):
                writer.writerow([target, source_ids[index], *(f"{value:.6f}" for value in values)])
