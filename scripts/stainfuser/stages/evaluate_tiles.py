"""Measure every way to normalise on the same tiles: against truth, source and target.

All methods see the same pixels (the tile store's); the delivered slides are read back from their
files, JPEG losses included, at the same place and resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.errors import StainFuserError
from stainfuser.evaluation_terms import (
    METHOD_BY_NAME,
    METRICS,
    SLIDE_METHODS,
    TABLE_COLUMNS,
    method_named,
)
from stainfuser.files import atomic_path, read_json
from stainfuser.io.images import read_image
from stainfuser.io.slides import SlideReader
from stainfuser.io.tile_store import TileReader
from stainfuser.logs import LOGGER, progress
from stainfuser.pictures import contact_sheet, save_picture
from stainfuser.seeds import derive_seed, generator
from stainfuser.stain.classical import CLASSICAL_METHODS, Normalizer, fit_classical
from stainfuser.stain.metrics import measure_tile
from stainfuser.stain.style_distance import StyleReference
from stainfuser.stamps import make_stamp

RgbImage = NDArray[np.uint8]
Row = tuple[str, str, str, int, str, float, str]

EXAMPLE_ROWS, EXAMPLE_CELL_PX = 6, 192
FALLBACK_NOTE = "undefined for this tile or target: left as it was"


@dataclass(frozen=True)
class Outcome:
    """What a method made of a tile: an image, or None; `note` says what went wrong."""

    image: RgbImage | None
    note: str = ""


@dataclass
class Target:
    """One reference image with everything that is computed from it once."""

    name: str
    image: RgbImage
    style: StyleReference
    normalizers: dict[str, Normalizer]
    models: dict[str, Callable[[RgbImage], RgbImage]]


@dataclass(frozen=True)
class Job:
    """One slide and one target; `normalized_path` and `method` are None for image sets."""

    slide: str
    tiles_path: Path
    target: str
    normalized_path: Path | None
    method: str | None
    truth_path: Path | None


@dataclass
class Findings:
    """Rows of the table, and example rows of pictures: (titles, method → image)."""

    rows: list[Row] = field(default_factory=list)
    examples: list[tuple[str, dict[str, RgbImage]]] = field(default_factory=list)


def evaluate_tiles(
    *,
    tiles_paths: Sequence[str | Path],
    normalized_paths: Sequence[str | Path],
    record_paths: Sequence[str | Path],
    truth_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    model_dir: str | Path,
    trained_dir: str | Path | None,
    table_path: str | Path,
    examples_path: str | Path,
    seed: int,
    tiles_per_slide: int,
    max_tiles: int,
    device: str | None = None,
    load_model: Callable[[str | Path, str | None], Any] = load_pipeline,
) -> None:
    """Write the long table of metrics and a picture of example tiles.

    Parameters
    ----------
    tiles_paths
        Tile stores, ``tiles/{slide}.h5``; every slide's name is its file's.
    normalized_paths, record_paths
        ``normalized/{target}/{slide}.svs`` and the ``.json`` beside each. A slide without any is
        an image set: it is measured tile by tile, against every target.
    truth_paths
        ``{slide}.svs`` with the same tissue in the target's stain, for as many as there are.
    target_paths
        Reference images, ``{target}.png``.
    model_dir, trained_dir
        Folder of the model that made the slides, and of one that was trained beside it, or None.
    table_path, examples_path
        Parquet with the columns of `evaluation_terms.TABLE_COLUMNS`; a PNG.
    seed
        Draws the tiles.
    tiles_per_slide, max_tiles
        Most tiles of a slide, and of all slides together (every slide keeps at least one).
    device, load_model
        They do not change the result (up to the arithmetic of the device).

    A method that fails on a tile gets NaN and a note, the others go on. Without any tile the
    table is empty and a warning is logged.

    Raises
    ------
    InputError
        The model, a target image or a tile store cannot be used.
    """
    jobs = _plan_jobs(tiles_paths, normalized_paths, record_paths, truth_paths, target_paths)
    per_slide = _share_of_slide(tiles_per_slide, max_tiles, len(tiles_paths))
    chosen = {job.tiles_path: _draw_tiles(job, per_slide, seed) for job in jobs}
    findings = Findings()
    if any(len(rows) for rows in chosen.values()):
        folders = {"stainfuser_tile": model_dir, "trained_tile": trained_dir}
        pipes = {name: load_model(path, device) for name, path in folders.items() if path}
        targets = {path.stem: path for path in map(Path, target_paths)}
        for name in sorted({job.target for job in jobs}):
            target = _fit_target(name, read_image(targets[name]), pipes, seed)
            own = [job for job in jobs if job.target == name]
            _measure_jobs(own, target, chosen, findings, len(jobs))
    else:
        LOGGER.warning("There is no tissue tile of any usable slide: nothing is evaluated.")
    config = {"seed": seed, "tiles_per_slide": tiles_per_slide, "max_tiles": max_tiles}
    hashes = {"model_sha256": fingerprint_model(model_dir)}
    if trained_dir:
        hashes["trained_sha256"] = fingerprint_model(trained_dir)
    stamp = make_stamp("evaluate_tiles", config, **hashes)
    _write_table(table_path, findings.rows, stamp)
    _write_examples(examples_path, findings.examples)


def _plan_jobs(
    tiles_paths: Sequence[str | Path],
    normalized_paths: Sequence[str | Path],
    record_paths: Sequence[str | Path],
    truth_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
) -> list[Job]:
    """Return one job per slide and target, in the order of the tile stores."""
    modes = {_key(path): read_json(path)["mode_used"] for path in map(Path, record_paths)}
    normalized = {_key(path): path for path in map(Path, normalized_paths)}
    truths = {path.stem: path for path in map(Path, truth_paths)}
    jobs = []
    for tiles_path in map(Path, tiles_paths):
        slide = tiles_path.stem
        own = [target for target, name in normalized if name == slide]
        for target in own or [Path(path).stem for path in target_paths]:
            path, mode = normalized.get((target, slide)), modes.get((target, slide))
            method = f"stainfuser_{mode}" if path and mode else None
            jobs.append(Job(slide, tiles_path, target, path, method, truths.get(slide)))
    return jobs


def _key(path: Path) -> tuple[str, str]:
    """Return (target, slide) of ``normalized/{target}/{slide}.suffix``."""
    return path.parent.name, path.stem


def _share_of_slide(tiles_per_slide: int, max_tiles: int, slides: int) -> int:
    return max(1, min(tiles_per_slide, max_tiles // max(1, slides)))


def _draw_tiles(job: Job, most: int, seed: int) -> NDArray[np.int64]:
    """Return rows of the tile store, in rising order: the same ones for every target."""
    with TileReader(job.tiles_path) as reader:
        count = len(reader)
    if count == 0:
        LOGGER.warning("%s has no tissue tile: it is not evaluated.", job.slide)
    drawn = generator(seed, "evaluate", job.slide).permutation(count)[:most]
    return np.sort(drawn)


def _fit_target(name: str, image: RgbImage, pipes: Mapping[str, Any], seed: int) -> Target:
    normalizers = {method: fit_classical(method, image) for method in CLASSICAL_METHODS}
    # What was trained here is the diffusion part, whatever its model does by default.
    modes = {"trained_tile": "render"}
    models = {
        method: _model_to(image, pipe, modes.get(method), seed) for method, pipe in pipes.items()
    }
    return Target(name, image, StyleReference(image), normalizers, models)


def _model_to(
    image: RgbImage, pipe: Any, mode: str | None, seed: int
) -> Callable[[RgbImage], RgbImage]:
    """Return what a model makes of a tile on its own."""
    encoded = pipe.encode_target(image)
    noise_seed = derive_seed(seed, "evaluate", "noise") >> 1

    def normalize(tile: RgbImage) -> RgbImage:
        # The tile is all that is known of its slide; said so, no tile is warned of.
        alone = pipe.fit_slide(tile[None], encoded)
        options = {"generator": noise_seed, "output_type": "np", "slide": alone, "mode": mode}
        return np.asarray(pipe(tile[None], encoded, **options).images)[0]

    return normalize


def _measure_jobs(
    jobs: Sequence[Job],
    target: Target,
    chosen: Mapping[Path, NDArray[np.int64]],
    findings: Findings,
    all_jobs: int,
) -> None:
    """Add what is found on the slides of one target to `findings`."""
    total = sum(len(chosen[job.tiles_path]) for job in jobs)
    examples_each = max(1, EXAMPLE_ROWS // all_jobs)
    steps = ((job, *step) for job in jobs for step in _tiles_of(job, chosen[job.tiles_path]))
    shown: dict[str, int] = {}
    for job, tile, source, delivered, truth in progress(steps, f"tiles to {target.name}", total):
        outcomes = {
            "identity": Outcome(source),
            **_classical_outcomes(source, target),
        }
        for method, model in target.models.items():
            outcomes[method] = _attempt(lambda source=source, model=model: model(source))
        if job.method and delivered:
            outcomes[job.method] = delivered
        if truth is not None:
            outcomes["truth"] = truth
        for method, outcome in outcomes.items():
            values = _measure(method, outcome, source, truth, target.style)
            where = (method, target.name, job.slide, tile)
            findings.rows += [(*where, name, *value) for name, value in values.items()]
        if shown.setdefault(job.slide, 0) < examples_each:
            shown[job.slide] += 1
            pictures = _pictures(outcomes)
            pictures["target"] = _centre(target.image, source.shape[0])
            findings.examples.append((f"{job.slide}\ntile {tile} to {target.name}", pictures))


def _pictures(outcomes: Mapping[str, Outcome]) -> dict[str, RgbImage]:
    """Return method → image; delivered slides share a column, however each was made."""
    pictures = {name: o.image for name, o in outcomes.items() if o.image is not None}
    for name in SLIDE_METHODS:
        if name in pictures:
            pictures["stainfuser_slide"] = pictures.pop(name)
    return pictures


def _tiles_of(
    job: Job, rows: NDArray[np.int64]
) -> Iterator[tuple[int, RgbImage, Outcome | None, Outcome | None]]:
    """Yield (row, source tile, delivered tile, true tile) of a slide."""
    with TileReader(job.tiles_path) as reader:
        attributes, coords = reader.attrs, reader.coords
        size_px, mpp = int(attributes["tile_px"]), float(attributes["mpp"])

        delivered, truth = map(_open, (job.normalized_path, job.truth_path))
        for row in rows.tolist():
            place = (*map(int, coords[row]), size_px, mpp)
            yield row, reader.images[row], _read(delivered, place), _read(truth, place)


def _open(path: Path | None) -> SlideReader | None:
    return SlideReader(path) if path else None


def _read(reader: SlideReader | None, place: tuple[int, int, int, float]) -> Outcome | None:
    """Return the square at (x_px, y_px, size_px, mpp); None if there is nothing to read."""
    return _attempt(lambda: reader.read_at_mpp(*place)) if reader else None


def _attempt(make: Callable[[], RgbImage]) -> Outcome:
    """Return what `make` makes, or why it did not."""
    try:
        return Outcome(make())
    except (StainFuserError, RuntimeError, ValueError, OSError) as error:
        LOGGER.warning("%s", error)
        return Outcome(None, " ".join(str(error).split()) or type(error).__name__)


def _classical_outcomes(source: RgbImage, target: Target) -> dict[str, Outcome]:
    results = {name: normalize(source) for name, normalize in target.normalizers.items()}
    return {
        name: Outcome(result.image, FALLBACK_NOTE if result.is_fallback else "")
        for name, result in results.items()
    }


def _measure(
    method: str,
    outcome: Outcome,
    source: RgbImage,
    truth: Outcome | None,
    style: StyleReference,
) -> dict[str, tuple[float, str]]:
    """Return metric → (value, note); the truth is not compared with itself."""
    true_tile = truth.image if truth is not None and method != "truth" else None
    if outcome.image is None:
        names = [m.name for m in METRICS if m.against != "truth" or true_tile is not None]
        return {name: (float("nan"), outcome.note) for name in names}
    values = measure_tile(outcome.image, source, true_tile, style)
    return {name: (value, outcome.note) for name, value in values.items()}


def _centre(image: RgbImage, size_px: int) -> RgbImage:
    top, left = (max(0, (side - size_px) // 2) for side in image.shape[:2])
    return image[top : top + size_px, left : left + size_px]


def _write_table(path: str | Path, rows: Sequence[Row], stamp: Mapping[str, str]) -> None:
    """Write the long table as Parquet with the stamp as metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"tile": pa.int64(), "value": pa.float64()}
    schema = pa.schema(
        [(name, types.get(name, pa.string())) for name in TABLE_COLUMNS], dict(stamp)
    )
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(TABLE_COLUMNS)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    with atomic_path(path) as partial:
        pq.write_table(pa.table(arrays, schema=schema), partial)


def _write_examples(path: str | Path, examples: Sequence[tuple[str, dict[str, RgbImage]]]) -> None:
    """Draw one row per example tile: source, every method, truth, and a piece of the target."""
    shown = examples[:: max(1, -(-len(examples) // EXAMPLE_ROWS))]
    present = {name for _, pictures in shown for name in pictures}
    columns = [name for name in METHOD_BY_NAME if name in present] + ["target"] * bool(shown)
    titles = {"identity": "Source", "target": "Target", "stainfuser_slide": "StainFuser, slide"}
    sheet = contact_sheet(
        [[pictures.get(name) for name in columns] for _, pictures in shown],
        title="The same tiles by every method" if shown else "There is no tile to show",
        column_titles=[titles.get(name, method_named(name).label) for name in columns],
        row_titles=[title for title, _ in shown],
        cell_px=EXAMPLE_CELL_PX,
    )
    save_picture(path, sheet)
