"""What a model does with input that it should leave alone, and how sure it is of H&E tissue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stainfuser.diffusion.benchmark_arms import OPERATOR, Image
from stainfuser.diffusion.head_evaluation import Row
from stainfuser.stain.metrics import ciede2000_map

TARGETS_USED = 3
HELD_OUT_TISSUE, ALL_TISSUE = "degenerate, none (held-out H&E)", "degenerate, none (all H&E)"


def evaluate_degenerate(
    pipe: Any,
    kinds: Mapping[str, Mapping[str, Image]],
    tissue: Mapping[str, Image],
    all_tissue: Mapping[str, Image],
) -> list[Row]:
    """Return rows of ``confidence`` and of the colour change ``de``, mean and 99th percentile.

    Every degenerate image is a source for `TARGETS_USED` images of `tissue` and a target of as
    many (``as target``). H&E tissue itself is measured for its confidence alone: `tissue` that was
    held out, and `all_tissue`, so that what is refused without need shows. Rows without an operator
    head lack the confidence.
    """
    sides = list(tissue.values())[:TARGETS_USED]
    rows: list[Row] = []
    for kind, images in kinds.items():
        for name, rgb in images.items():
            for other in sides:
                rows.append(_row(pipe, f"degenerate, {kind}", name, rgb, other))
                rows.append(_row(pipe, f"degenerate, {kind} as target", name, other, rgb))
    for data, images in ((HELD_OUT_TISSUE, tissue), (ALL_TISSUE, all_tissue)):
        for name, source, target in _pairs_of(images):
            row = _row(pipe, data, name, source, target)
            rows.append({key: row[key] for key in row if not key.endswith("de")})
    return rows


def _row(pipe: Any, data: str, unit: str, source: Image, target: Image) -> Row:
    output = pipe(source, target, output_type="np")
    difference = ciede2000_map(source, output.images[0])
    row: Row = {"arm": pipe_arm(pipe), "data": data, "unit": unit}
    row["de"] = float(difference.mean(dtype=np.float64))
    row["strongest_de"] = float(np.percentile(difference, 99))
    if output.confidence is not None:
        row["confidence"] = float(output.confidence[0])
    return row


def pipe_arm(pipe: Any) -> str:
    """Return the arm that a pipeline is unless it is told otherwise."""
    return OPERATOR if pipe.config.mode == "operator" else "render"


def _pairs_of(tissue: Mapping[str, Image]) -> Iterator[tuple[str, Image, Image]]:
    names = list(tissue)
    for index, name in enumerate(names):
        yield name, tissue[name], tissue[names[(index + 1) % len(names)]]
