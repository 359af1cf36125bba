"""Does tissue of one class get one colour wherever on the slide it lies?

A slide's own stain varies, and a faithful normaliser carries that on. What it must not add is a
change that depends on the place: what is left of the class colours of result tiles when those of
the source tiles have explained what one affine map can explain.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.style_distance import CLASS_NAMES, soft_classes

Array = NDArray[np.float64]

# Pixels of a tile, on a regular grid; a class is measured where it has this share of them.
SAMPLE_STEP_PX, MIN_CLASS_FRACTION = 4, 0.05
# Fewest tiles that an affine map of three channels is fitted to, with something to spare.
MIN_TILES = 8
# Ridge of that fit, OD^2 per tile: class colours of a homogeneous slide hardly vary.
RIDGE = 1e-4
TISSUE_CLASSES = CLASS_NAMES[1:]


class ClassDrift(NamedTuple):
    """Of one tissue class: tiles that show it, mean colour difference of distant tiles, OD.

    `source_od`, `result_od`: root mean square difference between the class's mean optical
    densities on tiles further apart than the median pair; `unexplained_od`: root mean square of
    what the source's colours do not explain of the result's.
    """

    tiles: int
    source_od: float
    result_od: float
    unexplained_od: float


def colour_drift(
    sources: NDArray[np.uint8], results: NDArray[np.uint8], coords: NDArray[np.integer]
) -> dict[str, ClassDrift]:
    """Return tissue class → its drift, for classes that enough tiles show.

    Tiles are (N, S, S, 3) uint8 RGB before and after, `coords` (N, 2) their places. Classes are
    those of the source's pixels.
    """
    if sources.shape != results.shape or len(coords) != len(sources):
        raise ValueError(
            f"as many tiles and places expected, got {sources.shape}, {results.shape}, "
            f"{np.shape(coords)}"
        )
    found = {}
    means = [_class_means(*pair) for pair in zip(sources, results, strict=True)]
    for index, name in enumerate(TISSUE_CLASSES):
        rows = [row for row, tile in enumerate(means) if np.isfinite(tile[:, index]).all()]
        if len(rows) >= MIN_TILES:
            pair = np.stack([means[row][:, index] for row in rows], axis=1)
            found[name] = _drift(pair[0], pair[1], np.asarray(coords)[rows])
    return found


def _class_means(source: NDArray[np.uint8], result: NDArray[np.uint8]) -> Array:
    """Return (2, 2, 3): mean OD of source and result, per tissue class; NaN where it is rare."""
    step = (slice(None, None, SAMPLE_STEP_PX),) * 2
    pixels = [image[step].reshape(-1, 3) for image in (source, result)]
    classes = soft_classes(pixels[0])[:, 1:].astype(np.float64)
    mass = classes.sum(axis=0)
    means = np.stack([classes.T @ rgb_to_od(p) / np.maximum(mass, 1e-9)[:, None] for p in pixels])
    means[:, mass < MIN_CLASS_FRACTION * len(classes)] = np.nan
    return means


def _drift(source: Array, result: Array, coords: NDArray[np.integer]) -> ClassDrift:
    apart = np.linalg.norm(coords[:, None].astype(float) - coords[None], axis=2)
    distant = apart >= np.median(apart[np.triu_indices(len(apart), 1)])
    np.fill_diagonal(distant, False)
    return ClassDrift(
        len(source),
        _spread(source, distant),
        _spread(result, distant),
        _unexplained(source, result),
    )


def _spread(means: Array, pairs: NDArray[np.bool_]) -> float:
    square = np.square(means[:, None] - means[None]).mean(axis=2)
    return float(np.sqrt(square[pairs].mean()))


def _unexplained(source: Array, result: Array) -> float:
    features = source - source.mean(axis=0)
    wanted = result - result.mean(axis=0)
    gram = features.T @ features + RIDGE * len(source) * np.eye(3)
    residual = wanted - features @ np.linalg.solve(gram, features.T @ wanted)
    freedom = max(1, len(source) - 4)
    return float(np.sqrt(np.square(residual).sum() / (3 * freedom)))
