"""How good an operator head is on unseen tissue and recolourings, beside classical methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from stainfuser.nn.operator_head import OperatorHead
from stainfuser.seeds import generator
from stainfuser.stain.benchmark_tasks import (
    RecolouringTask,
    background_change,
    bands_difference,
    composition_pairs,
    recolouring_task,
    region_bands,
    split_mosaic,
)
from stainfuser.stain.classical import CLASSICAL_METHODS, fit_classical
from stainfuser.stain.held_out_recolouring import FAMILIES, draw_held_out
from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr
from stainfuser.stain.operators import ColourOperator, apply_lookup_table

Image = NDArray[np.uint8]
Arm = Callable[[Image, Image], Image]
Row = dict[str, str | float]
TASK_TILE_PX = 256
PAIRS_PER_IMAGE = 3
# Regions of a mosaic are small: a column of five is one "slide".
FAN_BLOCK_STEP = 1


def head_arm(head: OperatorHead) -> Arm:
    """Return source, target → result, each image a slide of its own."""

    def normalize(source: Image, target: Image) -> Image:
        solution = head.solve(head.summarise([source]), head.summarise([target]))
        operator = ColourOperator.from_json(solution.diagnostics["operator"])
        return apply_lookup_table(source, operator.lookup_table())

    return normalize


def all_arms(head: OperatorHead) -> dict[str, Arm]:
    """Return the head, the classical methods and doing nothing, by name."""
    arms: dict[str, Arm] = {"operator_head": head_arm(head), "identity": lambda s, _: s}
    for method in CLASSICAL_METHODS:
        arms[method] = lambda s, t, method=method: fit_classical(method, t)(s).image
    return arms


def recolouring_tasks(images: Mapping[str, Image], seed: int) -> list[tuple[str, RecolouringTask]]:
    """Return (family, task) over held-out images: every family on every pair of windows."""
    tasks = []
    for name, rgb in images.items():
        tile_px = min(TASK_TILE_PX, min(rgb.shape[:2]) * 2 // 5)
        rng = generator(seed, "head_tasks", name)
        for pair in composition_pairs(rgb, tile_px, PAIRS_PER_IMAGE, rng):
            for family in FAMILIES:
                tasks.append(
                    (family, recolouring_task(pair, draw_held_out(pair.source, family, rng)))
                )
    return tasks


def evaluate_recolouring(
    arms: Mapping[str, Arm], tasks: Sequence[tuple[str, RecolouringTask]]
) -> list[Row]:
    """Return one row per arm, task and composition: ``de``, ``psnr``, ``structure``."""
    rows: list[Row] = []
    for family, task in tasks:
        for composition in ("matched", "mismatched"):
            reference = getattr(task, composition)
            for arm, normalize in arms.items():
                result = normalize(task.source, reference)
                rows.append(
                    {
                        "arm": arm,
                        "data": f"{family}/{composition}",
                        "de": ciede2000(result, task.truth),
                        "psnr": psnr(result, task.truth),
                        "structure": gradient_correlation(task.source, result),
                    }
                )
    return rows


def evaluate_fan(arms: Mapping[str, Arm], mosaics: Sequence[Image], step: int = 1) -> list[Row]:
    """Return one row per arm, block and pair of protocols; the reference is of the next block.

    A column of five regions is one slide. ``de`` compares the regions' lightness bands with those
    of the same regions in the target's protocol. `step` leaves out pairs of protocols.
    """
    blocks = [split_mosaic(mosaic) for mosaic in mosaics]
    rows: list[Row] = []
    for index, block in enumerate(blocks):
        other = blocks[(index + 1) % len(blocks)]
        bands = [[region_bands(region) for region in column] for column in block]
        pairs = [(s, t) for s in range(len(block)) for t in range(len(block)) if s != t]
        for source, target in pairs[index % step :: step]:
            for arm, normalize in arms.items():
                column = np.concatenate(block[source])
                result = normalize(column, np.concatenate(other[target]))
                regions = np.split(result, len(block[source]))
                differences = [
                    bands_difference(region_bands(region), wanted)
                    for region, wanted in zip(regions, bands[target], strict=True)
                ]
                structure = gradient_correlation(column, result)
                rows.append(
                    {
                        "arm": arm,
                        "data": "fan",
                        "de": float(np.mean(differences)),
                        "structure": structure,
                    }
                )
    return rows


def evaluate_safety(arm: Arm, images: Mapping[str, Image]) -> list[Row]:
    """Return one row for every source in every other image's stain: structure and background."""
    rows: list[Row] = []
    for source_name, source in images.items():
        for target_name, target in images.items():
            if source_name == target_name:
                continue
            result = arm(source, target)
            rows.append(
                {
                    "arm": "operator_head",
                    "data": f"{source_name} > {target_name}",
                    "structure": gradient_correlation(source, result),
                    "background_de": background_change(source, result),
                }
            )
    return rows


def evaluate_not_he(
    head: OperatorHead, images: Mapping[str, Image], he: Mapping[str, Image]
) -> list[Row]:
    """Return how sure the head is of images that are not H&E and of those that are, and dE.

    ``confidence`` should be near 0 for the first; ``de`` is what is changed nevertheless, with the
    first H&E image as the target.
    """
    target = head.summarise([next(iter(he.values()))])
    rows: list[Row] = []
    for data, group in (("not_he", images), ("he", he)):
        for rgb in group.values():
            solution = head.solve(head.summarise([rgb]), target)
            operator = ColourOperator.from_json(solution.diagnostics["operator"])
            result = apply_lookup_table(rgb, operator.lookup_table())
            row: Row = {"arm": "operator_head", "data": data, "confidence": solution.confidence}
            rows.append(row | ({"de": ciede2000(rgb, result)} if data == "not_he" else {}))
    return rows


def summarise_rows(rows: Sequence[Row]) -> list[Row]:
    """Return arm, data, metric, mean, worst and n; every source of `evaluate_safety` counts once.

    For colour differences the worst is the largest value, otherwise the smallest. Not-a-number
    (an image without glass) is left out.
    """
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in rows:
        data = "source x target" if " > " in str(row["data"]) else str(row["data"])
        names = (
            [data] if "/" not in data or data == "source x target" else [data, data.split("/")[1]]
        )
        for metric, value in row.items():
            if metric in ("arm", "data") or value != value:
                continue
            for name in names:
                groups.setdefault((str(row["arm"]), name, metric), []).append(float(value))
    return [
        {
            "arm": arm,
            "data": data,
            "metric": metric,
            "mean": round(float(np.mean(values)), 4),
            "worst": round(max(values) if metric.endswith("de") else min(values), 4),
            "n": len(values),
        }
        for (arm, data, metric), values in sorted(groups.items())
    ]
