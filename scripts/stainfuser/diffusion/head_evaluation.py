"""How good ways of normalising are, on tasks whose answer is known or can be measured.

Every function returns rows: a dictionary of ``arm``, ``data``, ``unit`` (the image, block or
laboratory the tile is from: tiles of one unit resemble each other) and the measured values.
``pools`` names further data the row counts to. `summarise_rows` and `benchmark_summary` average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.benchmark_arms import (
    OPERATOR,
    ORACLE,
    REFERENCE_ORACLE,
    Arm,
    Image,
    head_arm,
    operated,
    operated_as,
    peer_arms,
)
from stainfuser.diffusion.operator_mode import colour_operator, fit_tiles
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.seeds import generator
from stainfuser.stain.benchmark_tasks import (
    FAN_PROTOCOLS,
    background_change,
    bands_difference,
    composition_pairs,
    glass_mask,
    recolouring_task,
    region_bands,
    split_mosaic,
)
from stainfuser.stain.classical import CLASSICAL_METHODS
from stainfuser.stain.held_out_recolouring import FAMILIES, draw_held_out
from stainfuser.stain.metrics import ciede2000, ciede2000_map, gradient_correlation, psnr
from stainfuser.stain.operators import apply_lookup_table

Row = dict[str, Any]
COMPOSITIONS = ("matched", "mismatched")
# References of the mosaics of nine protocols, see `evaluate_fan`.
OTHER_BLOCK, SAME_BLOCK = "fan", "fan, reference of the same block"
LABORATORIES = "fan, whole laboratories"
SOURCE_X_TARGET = "source x target"
TASK_TILE_PX = 256
PAIRS_PER_IMAGE = 3


@dataclass(frozen=True)
class ExactTask:
    """`source` in the stain of `reference` is `truth`; the labels are those of a row.

    `untouched`: the tissue of the reference in the source's stain, which no method is shown.
    """

    data: str
    pools: tuple[str, ...]
    unit: str
    source: Image
    reference: Image
    truth: Image
    untouched: Image


def all_arms(head: OperatorHead) -> dict[str, Arm]:
    """Return the head, two classical methods and doing nothing, by name."""
    return {OPERATOR: head_arm(head), **peer_arms(CLASSICAL_METHODS)}


def recolouring_tasks(
    images: Mapping[str, Image], seed: int, pairs_per_image: int = PAIRS_PER_IMAGE, data: str = ""
) -> list[ExactTask]:
    """Return tasks over held-out images: every family on every pair of windows.

    `data` is put before the names of the data.
    """
    tasks = []
    for name, rgb in images.items():
        tile_px = min(TASK_TILE_PX, min(rgb.shape[:2]) * 2 // 5)
        rng = generator(seed, "head_tasks", name)
        for pair in composition_pairs(rgb, tile_px, pairs_per_image, rng):
            for family in FAMILIES:
                task = recolouring_task(pair, draw_held_out(pair.source, family, rng))
                tasks += [
                    ExactTask(
                        f"{data}{composition}, {family}",
                        (f"{data}{composition}",),
                        name,
                        task.source,
                        getattr(task, composition),
                        task.truth,
                        getattr(pair, composition),
                    )
                    for composition in COMPOSITIONS
                ]
    return tasks


def evaluate_recolouring(
    arms: Mapping[str, Arm], tasks: Sequence[ExactTask], with_oracle: bool = False
) -> list[Row]:
    """Return one row per arm and task; `with_oracle`: of operators that know more, too.

    ``de`` over all pixels, ``tissue_de`` without the glass (which an operator keeps and a
    recolouring may move), ``psnr``, and ``structure``: gradient correlation with the source.
    """
    rows: list[Row] = []
    for task in tasks:
        tissue = ~glass_mask(task.source)
        results = {arm: fit(task.reference)(task.source) for arm, fit in arms.items()}
        if with_oracle:
            results[ORACLE] = operated(task.source, task.truth)
            results[REFERENCE_ORACLE] = operated_as(task.source, task.untouched, task.reference)
        for arm, result in results.items():
            difference = ciede2000_map(result, task.truth)
            rows.append(
                {
                    "arm": arm,
                    "data": task.data,
                    "pools": task.pools,
                    "unit": task.unit,
                    "de": float(difference.mean(dtype=np.float64)),
                    "tissue_de": float(difference[tissue].mean(dtype=np.float64)),
                    "psnr": psnr(result, task.truth),
                    "structure": gradient_correlation(task.source, result),
                }
            )
    return rows


def evaluate_fan(
    arms: Mapping[str, Arm], mosaics: Sequence[Image], step: int = 1, reference: str = OTHER_BLOCK
) -> list[Row]:
    """Return one row per arm, block and pair of protocols.

    A column of five regions is one slide. ``de`` compares the regions' lightness bands with those
    of the same regions in the target's protocol. `step` leaves out pairs of protocols. `reference`:

    - `OTHER_BLOCK`: the next block's slide of the target's protocol.
    - `SAME_BLOCK`: the same block's, so that no difference of tissue is left.
    - `LABORATORIES`: those of all other blocks together, and the source is all blocks of its
      protocol together: what is known where a laboratory's slides are normalised as one.
    """
    blocks = [split_mosaic(mosaic) for mosaic in mosaics]
    columns = [[np.concatenate(regions) for regions in block] for block in blocks]
    # The same arrays for every target: an arm may look at each of its sources once.
    laboratories = [np.concatenate(slides) for slides in zip(*columns, strict=True)]
    pairs = [(t, s) for t in range(FAN_PROTOCOLS) for s in range(FAN_PROTOCOLS) if s != t]
    rows: list[Row] = []
    for index, block in enumerate(blocks):
        bands = [[region_bands(region) for region in regions] for regions in block]
        others = {
            OTHER_BLOCK: [(index + 1) % len(columns)],
            SAME_BLOCK: [index],
            LABORATORIES: [other for other in range(len(columns)) if other != index],
        }[reference]
        pooled = reference == LABORATORIES
        sources, place = (laboratories, index) if pooled else (columns[index], 0)
        fitted: dict[str, Callable[[Image], Image]] = {}
        last = None
        for target, source in pairs[index % step :: step]:
            if target != last:
                image, last = np.concatenate([columns[i][target] for i in others]), target
                fitted = {arm: fit(image) for arm, fit in arms.items()}
            column = columns[index][source]
            own = slice(place * len(column), (place + 1) * len(column))
            for arm, normalize in fitted.items():
                result = normalize(sources[source])[own]
                de = _regions_difference(result, bands[target])
                structure = gradient_correlation(column, result)
                labels = {"arm": arm, "data": reference, "unit": str(index)}
                rows.append(labels | {"de": de, "structure": structure})
    return rows


def _regions_difference(column: Image, wanted: Sequence[NDArray[np.float64]]) -> float:
    regions = np.split(column, len(wanted))
    return float(
        np.mean(
            [bands_difference(region_bands(r), w) for r, w in zip(regions, wanted, strict=True)]
        )
    )


def evaluate_safety(
    arm: Arm,
    images: Mapping[str, Image],
    name: str = OPERATOR,
    data: str = SOURCE_X_TARGET,
    show: Callable[[str, str, Image], None] | None = None,
) -> list[Row]:
    """Return one row for every source in every other image's stain: structure and background.

    `show` gets the names of source and target, and the result.
    """
    glass = {key: glass_mask(rgb) for key, rgb in images.items()}
    rows: list[Row] = []
    for target_name, target in images.items():
        normalize = arm(target)
        for source_name, source in images.items():
            if source_name == target_name:
                continue
            result = normalize(source)
            if show is not None:
                show(source_name, target_name, result)
            rows.append(
                {
                    "arm": name,
                    "data": data,
                    "unit": source_name,
                    "target": target_name,
                    "structure": gradient_correlation(source, result),
                    "background_de": background_change(source, result, glass[source_name]),
                }
            )
    return rows


def evaluate_not_he(
    head: OperatorHead,
    images: Mapping[str, Image],
    he: Mapping[str, Image],
    data: tuple[str, str] = ("not_he", "he"),
) -> list[Row]:
    """Return how sure the head is of images that are not H&E and of those that are, and dE.

    ``confidence`` should be near 0 for the first; ``de`` is what is changed nevertheless, with the
    first H&E image as the target.
    """
    target = head.summarise([next(iter(he.values()))])
    rows: list[Row] = []
    for name, group in zip(data, (images, he), strict=True):
        for unit, rgb in group.items():
            solution = fit_tiles(head, [rgb], target)
            row: Row = {"arm": OPERATOR, "data": name, "unit": unit}
            row["confidence"] = solution.confidence
            if group is images:
                table = colour_operator(solution).lookup_table()
                row["de"] = ciede2000(rgb, apply_lookup_table(rgb, table))
            rows.append(row)
    return rows


def summarise_rows(rows: Sequence[Row]) -> list[Row]:
    """Return arm, data, metric, mean, worst and n.

    For colour differences the worst is the largest value, otherwise the smallest. Not-a-number
    (an image without glass) is left out.
    """
    return [
        {
            "arm": arm,
            "data": data,
            "metric": metric,
            "mean": round(float(np.mean(values)), 4),
            "worst": round(worst_of(metric, values), 4),
            "n": len(values),
        }
        for (arm, data, metric), (values, _) in grouped(rows).items()
    ]


def grouped(
    rows: Sequence[Row],
) -> dict[tuple[str, str, str], tuple[NDArray[np.float64], list[str]]]:
    """Return (arm, data, metric) → values and the unit of each, sorted by name."""
    groups: dict[tuple[str, str, str], tuple[list[float], list[str]]] = {}
    for row in rows:
        for data in (row["data"], *row.get("pools", ())):
            for metric, value in row.items():
                if isinstance(value, float) and value == value:
                    values, units = groups.setdefault((row["arm"], data, metric), ([], []))
                    values.append(value)
                    units.append(row["unit"])
    return {key: (np.array(groups[key][0]), groups[key][1]) for key in sorted(groups)}


def worst_of(metric: str, values: NDArray[np.float64]) -> float:
    """Return the largest colour difference or time, the smallest of anything else."""
    return float(values.max() if metric.endswith(("de", "seconds")) else values.min())
