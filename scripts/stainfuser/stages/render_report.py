"""One HTML file that shows what ran, on which slides, and how well; it loads nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from stainfuser import __version__
from stainfuser.board_picture import draw_board
from stainfuser.embedded_pictures import Picture, embed_file, embed_photo
from stainfuser.errors import StainFuserError
from stainfuser.evaluation_board import make_board
from stainfuser.failures import left_out, read_index
from stainfuser.files import read_json, write_text
from stainfuser.io.before_after import BeforeAfter, read_before_after
from stainfuser.io.images import read_image
from stainfuser.logs import LOGGER, progress
from stainfuser.report_tables import (
    VALIDATION_METRICS,
    duration,
    headline,
    hide_folders,
    loss_summary,
    metric_tables,
    read_config,
    read_rows,
    score_summary,
    timings,
    training_outcome,
    validation_rows,
    without_folders,
)
from stainfuser.stain.class_colours import class_colours, typical_colours

Record = Mapping[str, Any]
Colours = dict[str, tuple[int, int, int]]

TEMPLATES = Path(__file__).resolve().parent.parent / "report"
# Side of the crops at full resolution, of pictures shown at page width, and of small ones, px.
DETAIL_PX, PLATE_PX, SMALL_PLATE_PX = 480, 1500, 420
# The examples have a row per arm: higher than wide.
EXAMPLES_PX = 4600
# Contact sheets of pairs that are shown; places per slide that crop and swatches come from.
MAX_SHEETS, PLACES = 4, 8
# Above this size browsers and mail programs begin to suffer.
COMFORTABLE_MB = 15.0


@dataclass(frozen=True)
class Comparison:
    """The same view before and after."""

    before: Picture
    after: Picture


@dataclass
class SlideCard:
    """One slide in one target's stain, as far as it could be opened."""

    record: Record
    overlay: Picture | None = None
    overview: Comparison | None = None
    detail: Comparison | None = None
    detail_um: float = 0.0
    colours_before: Colours = field(default_factory=dict)
    colours_after: Colours = field(default_factory=dict)
    problem: str = ""


def render_report(
    *,
    config_path: str | Path,
    index_path: str | Path,
    failed_dir: str | Path,
    record_paths: Sequence[str | Path],
    normalized_paths: Sequence[str | Path],
    slide_paths: Mapping[str, str | Path],
    overlay_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    montage_paths: Sequence[str | Path],
    sheet_paths: Sequence[str | Path],
    scores_path: str | Path | None,
    losses_path: str | Path | None,
    training_pictures: Sequence[str | Path],
    validation_path: str | Path | None,
    summary_path: str | Path | None,
    evaluation_pictures: Sequence[str | Path],
    arm_record_paths: Sequence[str | Path],
    consistency_paths: Sequence[str | Path],
    downstream_path: str | Path | None,
    benchmarks_dir: str | Path,
    report_path: str | Path,
    thumbnail_px: int,
    max_slides: int,
) -> None:
    """Write the report.

    Parameters
    ----------
    config_path, index_path, failed_dir
        Resolved configuration, ``slides/index.csv`` and the folder of late failures.
    record_paths, normalized_paths
        Records (of slides and image sets) and normalised slides.
    slide_paths
        Slide name → its source; it is opened for the pictures and named nowhere.
    overlay_paths, target_paths, montage_paths, sheet_paths
        Mask overlays, target images, cluster montages and contact sheets of pairs.
    arm_record_paths, consistency_paths
        JSON of apply_arm, and of check_consistency.
    scores_path, losses_path, validation_path, summary_path, downstream_path
        Tables; None where the run did not make them.
    training_pictures, evaluation_pictures
        Pictures of the training and of the evaluation, known by their file names.
    benchmarks_dir
        Folder of Snakemake's benchmark files.
    report_path
        One self-contained HTML file.
    thumbnail_px, max_slides
        The section `report` of the configuration.

    Whatever is missing or cannot be opened is left out, and said so in its place.
    """
    config = without_folders(read_config(config_path))
    records = [record for path in record_paths if (record := _read_record(path))]
    chosen = _most_doubtful(records, max_slides)
    normalized = {(Path(path).parent.name, Path(path).stem): path for path in normalized_paths}
    overlays = {Path(path).stem: path for path in overlay_paths}
    cards = [
        _make_card(record, slide_paths, normalized, overlays, thumbnail_px)
        for record in progress(chosen, "before and after", len(chosen))
    ]
    summary = read_rows(summary_path)
    arm_records = [record for path in arm_record_paths if (record := _read_record(path))]
    board = make_board(summary, arm_records, read_rows(downstream_path))
    content = {
        **_describe_run(config, index_path, failed_dir, os.path.getmtime(config_path)),
        **_describe_targets(target_paths),
        "records": records,
        "modes": Counter(_mode(record) for record in records),
        "cards": cards,
        "board": board,
        "board_picture": Markup(draw_board(board)),
        "consistency": [found for path in consistency_paths if (found := _read_record(path))],
        "headline": headline(summary),
        "metric_tables": metric_tables(summary),
        "has_truth": any(row["metric"].endswith("_truth") for row in summary),
        "evaluation": _embed_all(evaluation_pictures, EXAMPLES_PX),
        "montages": _embed_all(montage_paths, PLATE_PX),
        "sheets": _embed_all(_spread(sheet_paths, MAX_SHEETS), PLATE_PX),
        "sheet_count": len(sheet_paths),
        "scores": score_summary(read_rows(scores_path)),
        "losses": loss_summary(read_rows(losses_path)),
        "training": _embed_all(training_pictures, PLATE_PX),
        "validation": validation_rows(validation_path),
        "training_outcome": training_outcome(
            validation_path, summary, config.get("train", {}).get("initial_model")
        ),
        "timings": timings(benchmarks_dir),
    }
    _write(report_path, _render(content))


def _describe_run(
    config: dict[str, Any], index_path: str | Path, failed_dir: str | Path, not_before: float
) -> dict[str, Any]:
    """Return what was asked for and what became of every slide."""
    failures = left_out(index_path, failed_dir, not_before)
    return {
        "version": __version__,
        "config": config,
        "config_text": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "index": read_index(index_path),
        "failures": [
            {key: hide_folders(value) for key, value in vars(failure).items()}
            for failure in failures
        ],
        "failed": {failure.slide: failure.verdict for failure in failures},
    }


def _describe_targets(paths: Sequence[str | Path]) -> dict[str, Any]:
    targets, colours = {}, {}
    for path in map(Path, paths):
        targets[path.stem] = embed_file(path, f"Target image {path.stem}", SMALL_PLATE_PX)
        try:
            colours[path.stem] = class_colours(read_image(path))
        except StainFuserError as error:
            LOGGER.warning("%s", error)
    return {"targets": targets, "target_colours": colours}


def _read_record(path: str | Path) -> Record | None:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        LOGGER.warning("%s: no readable record (%s)", Path(path).name, error)
        return None


def _mode(record: Record) -> str:
    """Return how a slide was made; an image set may have been made in several ways."""
    if "images" not in record:
        return str(record.get("mode_used"))
    return ", ".join(sorted({str(image.get("mode_used")) for image in record["images"]}))


def _most_doubtful(records: Sequence[Record], most: int) -> list[Record]:
    """Return the slides with most reason to doubt them, all if they are few, in their order."""
    slides = [record for record in records if record.get("kind") == "slide"]
    ranked = sorted(range(len(slides)), key=lambda i: _doubt(slides[i]), reverse=True)
    return [slides[i] for i in sorted(ranked[:most])]


def _confidence(record: Record) -> float | None:
    """Return how sure the operator head was; of an image set, of its most doubtful image."""
    known = [part.get("confidence") for part in record.get("images", [record])]
    return min((value for value in known if value is not None), default=None)


def _doubt(record: Record) -> tuple[float, float]:
    """Return how doubtful a slide is: low confidence first, then residual or expected error."""
    confidence = _confidence(record)
    expected = (record.get("head") or {}).get("expected_de") or 0.0
    residual = (record.get("residual") or {}).get("median_de") or expected
    return 1.0 - (1.0 if confidence is None else confidence), residual


def _make_card(
    record: Record,
    slide_paths: Mapping[str, str | Path],
    normalized: Mapping[tuple[str, str], str | Path],
    overlays: Mapping[str, str | Path],
    thumbnail_px: int,
) -> SlideCard:
    """Return the pictures of one slide, or why there are none."""
    slide, target = record["slide"], record["target"]
    card = SlideCard(record)
    if slide in overlays:
        card.overlay = embed_file(overlays[slide], f"Tissue mask of {slide}", SMALL_PLATE_PX)
    try:
        seen = read_before_after(
            slide_paths[slide],
            normalized[target, slide],
            record["mpp"],
            _tissue_corners_px(record),
            overview_px=thumbnail_px,
            detail_px=DETAIL_PX,
        )
        _show(card, seen)
    except (StainFuserError, OSError, KeyError, ValueError) as error:
        LOGGER.warning("%s: no pictures: %s", slide, error)
        missing = isinstance(error, KeyError)
        card.problem = "its file is not at hand" if missing else hide_folders(str(error))
    return card


def _tissue_corners_px(record: Record) -> list[tuple[int, int]]:
    """Return level-0 corners of some tiles the operator was fitted on."""
    scale = (record.get("model_mpp") or record["mpp"]) / record["mpp"]
    tiles = _spread(record.get("tiles") or [], PLACES)
    return [(round(x * scale), round(y * scale)) for x, y in tiles]


def _show(card: SlideCard, seen: BeforeAfter) -> None:
    slide, target = card.record["slide"], card.record["target"]
    card.overview = _compare(seen.overview, f"Whole slide {slide}", target)
    card.detail = _compare(seen.detail, f"Detail of {slide} at full resolution", target)
    card.detail_um = DETAIL_PX * card.record["mpp"]
    before, after = seen.samples
    card.colours_before = typical_colours(before)
    card.colours_after = typical_colours(after, classes_of=before)


def _compare(pair: tuple[Any, Any], what: str, target: str) -> Comparison:
    before, after = pair
    return Comparison(
        embed_photo(before, f"{what}, before"),
        embed_photo(after, f"{what}, in the stain of {target}"),
    )


def _embed_all(paths: Sequence[str | Path], max_side_px: int) -> dict[str, Picture]:
    """Return file stem → picture, of those that can be read."""
    found = {Path(path).stem: _embed(Path(path), max_side_px) for path in paths}
    return {stem: picture for stem, picture in found.items() if picture}


def _embed(path: Path, max_side_px: int) -> Picture | None:
    # Drawn figures stay sharp as they are; photographs are made smaller.
    is_figure = path.stem in ("overview", "curves")
    return embed_file(path, path.stem.replace("_", " "), None if is_figure else max_side_px)


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most `most` items, evenly spread."""
    count = min(most, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def _render(content: dict[str, Any]) -> str:
    """Fill the template; every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["mode"] = _mode
    environment.filters["confidence"] = _confidence
    template = environment.get_template("index.html.j2")
    return template.render(**content, validation_metrics=list(VALIDATION_METRICS.values()))


def _write(path: str | Path, html: str) -> None:
    write_text(path, html)
    size_mb = len(html.encode()) / 1e6
    LOGGER.info("report: %.1f MB", size_mb)
    if size_mb > COMFORTABLE_MB:
        LOGGER.warning("The report has %.0f MB; lower report.max_slides for less.", size_mb)
