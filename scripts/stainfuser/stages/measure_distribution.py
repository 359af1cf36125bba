"""Fréchet distances between what an arm makes of all tiles and the truth, or the target image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.evaluation_arms import ARMS
from stainfuser.evaluation_terms import SUMMARY_COLUMNS, known_order
from stainfuser.files import write_table
from stainfuser.io.evaluation_store import ArmStore, EvaluationSample, read_sample
from stainfuser.io.images import read_image
from stainfuser.logs import LOGGER, progress
from stainfuser.seeds import generator
from stainfuser.stain.bootstrap import resampling_weights
from stainfuser.stain.gaussian_distance import Cloud, fit_cloud, frechet_between

Images = NDArray[np.uint8]
Features = NDArray[np.float64]
Row = tuple[str, str, str, float, float, float, int]
# Fréchet distances are costly and biased; so many resamples show their spread.
MOST_RESAMPLES = 200
BATCH = 16
# Fewest tiles that a Gaussian is fitted to.
MIN_TILES = 8


class Observed(NamedTuple):
    """Features of tiles, (N, F), and the slide and the row each is from."""

    features: Features
    places: list[tuple[str, int]]


def measure_distribution(
    *,
    arm_paths: Sequence[str | Path],
    sample_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    table_path: str | Path,
    seed: int,
    inception_weights: str | None,
    bootstrap_samples: int,
    confidence: float,
    threads: int = 1,
) -> None:
    """Write one row per arm, target and reference, in the columns of the summary.

    Parameters
    ----------
    arm_paths, sample_paths, target_paths
        ``{arm}.h5`` of apply_arm, ``{slide}.h5`` of sample_evaluation_tiles, ``{target}.png``.
    table_path
        CSV with the columns of `evaluation_terms.SUMMARY_COLUMNS`. A metric's name says on which
        features it is: ``fd_stain_truth`` on this repository's, ``fid_truth`` on the published
        Inception weights. Arms that were given fewer tiles than the others are left out, because
        the distance depends on the number of tiles.
    seed, bootstrap_samples, confidence
        Of the intervals (at most 200 resamples are drawn).
    inception_weights
        File of Inception weights, or None.

    Raises
    ------
    InputError
        Weights that cannot be used.
    """
    from stainfuser.diffusion.torch_threads import torch_threads
    from stainfuser.nn.frechet import frechet_features

    with torch_threads(threads):
        named = frechet_features(inception_weights)
        prefix = named.name.lower().replace("-", "_")
        extract = _extractor(named.network)
        stores = {Path(path).stem: ArmStore(path) for path in arm_paths}
        samples = {Path(path).stem: read_sample(path) for path in sample_paths}
        rows: list[Row] = []
        for path in map(Path, target_paths):
            pieces = extract(_pieces(read_image(path), _side_px(samples)))
            draws = (generator(seed, "distribution", path.stem), bootstrap_samples, confidence)
            rows += _measure_target(path.stem, stores, samples, extract, pieces, prefix, draws)
    _write(table_path, rows)


def _extractor(network: Any) -> Any:
    """Return the function (N, S, S, 3) uint8 → (N, F) float64."""
    import torch

    @torch.no_grad()
    def extract(images: Images) -> Features:
        parts = [np.zeros((0, network.num_features))]
        for start in range(0, len(images), BATCH):
            batch = np.ascontiguousarray(images[start : start + BATCH].transpose(0, 3, 1, 2))
            parts.append(network(torch.from_numpy(batch)).double().numpy())
        return np.concatenate(parts)

    return extract


def _side_px(samples: Mapping[str, EvaluationSample]) -> int:
    return next((s.source.shape[1] for s in samples.values() if len(s)), 256)


def _pieces(image: Images, side_px: int) -> Images:
    """Return all windows of a tile's size, half a tile apart, that the image holds."""
    side_px = min(side_px, *image.shape[:2])
    step = max(1, side_px // 2)
    starts = [range(0, size - side_px + 1, step) for size in image.shape[:2]]
    return np.stack([image[y : y + side_px, x : x + side_px] for y in starts[0] for x in starts[1]])


def _measure_target(
    target: str,
    stores: Mapping[str, ArmStore],
    samples: Mapping[str, EvaluationSample],
    extract: Any,
    pieces: Features,
    prefix: str,
    draws: tuple[np.random.Generator, int, float],
) -> list[Row]:
    names = known_order(stores, ARMS)
    observed = {
        name: _observe(stores[name], target, samples, extract)
        for name in progress(names, f"features, {target}", len(names))
    }
    most = max((len(o.places) for o in observed.values()), default=0)
    if most < MIN_TILES:
        LOGGER.warning("%s: %d tiles are too few for a Fréchet distance.", target, most)
        return []
    truth = observed.get("truth")
    weights = _weights(observed, most, draws)
    rows: list[Row] = []
    for name, found in observed.items():
        if len(found.places) < most:
            continue
        fixed = [fit_cloud(pieces)] * (1 + len(weights)) if len(pieces) >= 2 else None
        if fixed is not None:
            rows.append(_row(name, target, f"{prefix}_target", found, fixed, weights, draws[2]))
        if truth is not None and name != "truth" and truth.places == found.places:
            clouds = [fit_cloud(truth.features, w) for w in (None, *weights)]
            rows.append(_row(name, target, f"{prefix}_truth", found, clouds, weights, draws[2]))
    return rows


def _observe(
    store: ArmStore, target: str, samples: Mapping[str, EvaluationSample], extract: Any
) -> Observed:
    features, places = [], []
    for group_target, slide in store.groups:
        if group_target == target:
            result = store.read(target, slide)
            made = np.flatnonzero(result.is_made)
            features.append(extract(result.image[made]))
            places += [(slide, int(samples[slide].rows[index])) for index in made]
    return Observed(np.concatenate(features) if features else np.zeros((0, 1)), places)


def _weights(
    observed: Mapping[str, Observed], most: int, draws: tuple[np.random.Generator, int, float]
) -> NDArray[np.float64]:
    """Return (B, N): how often each tile is drawn, the same draws for every arm."""
    places = next(o.places for o in observed.values() if len(o.places) == most)
    slides = np.unique([slide for slide, _ in places], return_inverse=True)[1]
    return resampling_weights(slides, draws[0], min(draws[1], MOST_RESAMPLES))


def _row(
    name: str,
    target: str,
    metric: str,
    found: Observed,
    references: Sequence[Cloud],
    weights: NDArray[np.float64],
    confidence: float,
) -> Row:
    """Return value and interval; `references` are those of the whole and of every resample.

    A resample has tiles twice, so that its distance is biased upwards: the interval is moved by
    the mean bias.
    """
    value = frechet_between(fit_cloud(found.features), references[0])
    drawn = np.array(
        [
            frechet_between(fit_cloud(found.features, weight), reference)
            for weight, reference in zip(weights, references[1:], strict=True)
        ]
    )
    levels = [(1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0]
    low, high = np.quantile(drawn - drawn.mean(), levels) + value
    low, high = max(0.0, min(low, value)), max(high, value)
    return name, target, metric, value, float(low), float(high), len(found.places)


def _write(path: str | Path, rows: Sequence[Row]) -> None:
    import pandas as pd

    write_table(path, pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)))
