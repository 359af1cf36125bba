"""What the report says in numbers: tables read from the products of a run, ready to be shown."""

from __future__ import annotations

import csv
import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stainfuser.evaluation_arms import ARMS, Arm, arm_named
from stainfuser.evaluation_terms import ALL_TARGETS, METRIC_BY_NAME, Metric, known_order, number
from stainfuser.files import read_json

GROUP_TITLES = {
    "truth": ("How near to the truth", "the same tissue in the target's stain"),
    "source": ("Is the tissue still itself", "the slide before"),
    "target": ("Does it look like the target", "the reference image"),
}
VALIDATION_ARMS = {
    "identity": "Untouched",
    "autoencoder": "Through the autoencoder only",
    "untrained": "Before training",
    "trained": "After training",
}
# Smaller differences of CIEDE2000 are no reason to prefer one model.
LEAST_GAIN_DE = 0.1
VALIDATION_METRICS = {
    "ciede2000": "\u0394E to the stylised image",
    "psnr": "PSNR to the stylised image, dB",
    "gradient_correlation": "Gradient correlation with the source",
}
# The folders of an absolute path inside a sentence; they are the user's own business.
FOLDERS = re.compile(r"(?<![^\s'\"(=,])~?/(?:[^\s'\",;()]+/)+")


@dataclass(frozen=True)
class Cell:
    """One number of a metric table as text, its interval, and whether it is the column's best."""

    value: str
    interval: str
    is_best: bool


@dataclass(frozen=True)
class MetricRow:
    """One method: its words and colour, number of tiles, a cell per metric (None: not measured)."""

    method: Arm
    tiles: int
    cells: list[Cell | None]
    is_ours: bool


@dataclass(frozen=True)
class MetricTable:
    """All methods against one reference (truth, source or target image)."""

    title: str
    against: str
    metrics: list[Metric]
    rows: list[MetricRow]


@dataclass(frozen=True)
class Timing:
    """All jobs of one rule: number, seconds together, their share of the longest, peak memory."""

    rule: str
    jobs: int
    seconds: float
    share: float
    peak_mb: float | None


def read_rows(path: str | Path | None) -> list[dict[str, str]]:
    """Return the rows of a CSV file as text; none if there is no such file."""
    if path is None or not Path(path).is_file():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def metric_tables(rows: Sequence[dict[str, str]]) -> dict[str, list[MetricTable]]:
    """Return target → its tables, from the rows of ``evaluation/summary.csv``."""
    tables: dict[str, list[MetricTable]] = {}
    for target in sorted({row["target"] for row in rows} - {ALL_TARGETS}):
        own = {(r["method"], r["metric"]): r for r in rows if r["target"] == target}
        groups = [_metric_table(against, own) for against in GROUP_TITLES]
        tables[target] = [table for table in groups if table.rows]
    return tables


def _metric_table(against: str, own: dict[tuple[str, str], dict[str, str]]) -> MetricTable:
    names = known_order((metric for _, metric in own), METRIC_BY_NAME)
    metrics = [METRIC_BY_NAME[name] for name in names if name in METRIC_BY_NAME]
    metrics = [metric for metric in metrics if metric.against == against]
    methods = known_order((method for method, _ in own), ARMS)
    best = {metric.name: _best_method(metric, methods, own) for metric in metrics}
    rows = []
    for method in methods:
        found = [own.get((method, metric.name)) for metric in metrics]
        cells = [
            _cell(row, metric, best[metric.name] == method) if row else None
            for row, metric in zip(found, metrics, strict=True)
        ]
        if any(cells):
            tiles = max(int(row["n"]) for row in found if row)
            arm = arm_named(method)
            rows.append(MetricRow(arm, tiles, cells, arm.is_ours))
    return MetricTable(*GROUP_TITLES[against], metrics, rows)


def _best_method(
    metric: Metric, methods: Sequence[str], own: dict[tuple[str, str], dict[str, str]]
) -> str | None:
    """Return the best competitor among those that met the most tiles, if the metric ranks at all.

    The source and the truth are references, not competitors.
    """
    rows = {method: own.get((method, metric.name)) for method in methods}
    rows = {method: row for method, row in rows.items() if row and arm_named(method).competes}
    most = max((int(row["n"]) for row in rows.values()), default=0)
    values = {
        method: value
        for method, row in rows.items()
        if int(row["n"]) == most and (value := number(row["value"])) is not None
    }
    if not values or not metric.is_ranking:
        return None
    return (max if metric.is_higher_better else min)(values, key=values.__getitem__)


def _cell(row: dict[str, str], metric: Metric, is_best: bool) -> Cell:
    value, low, high = (number(row[key]) for key in ("value", "ci_low", "ci_high"))
    if value is None or low is None or high is None:
        return Cell("failed", "", False)
    if metric.name == "psnr_source" and row["method"] == "identity":
        return Cell("identical", "", False)
    text = [f"{each:.{metric.digits}f}" for each in (value, low, high)]
    return Cell(text[0], f"{text[1]} \u2013 {text[2]}", is_best)


def validation_rows(path: str | Path | None) -> list[tuple[str, int, list[tuple[str, list[str]]]]]:
    """Return (part, n, [(arm, numbers)]) of ``train/validation.json``; none without the file."""
    if path is None or not Path(path).is_file():
        return []
    parts = read_json(path).get("parts", {})
    tables = []
    for part, content in parts.items():
        arms = [arm for arm in VALIDATION_ARMS if isinstance(content.get(arm), dict)]
        rows = [(VALIDATION_ARMS[arm], _validation_numbers(content[arm])) for arm in arms]
        tables.append((part.replace("_", " "), content.get("n", 0), rows))
    return tables


def _validation_numbers(scores: dict[str, float]) -> list[str]:
    digits = {"ciede2000": 2, "psnr": 1, "gradient_correlation": 3}
    values = {name: number(scores.get(name)) for name in VALIDATION_METRICS}
    return [
        "\u2013" if value is None else f"{value:.{digits[name]}f}" for name, value in values.items()
    ]


def timings(benchmarks_dir: str | Path) -> list[Timing]:
    """Return the rules with their times, longest first, from Snakemake's benchmark files."""
    folder = Path(benchmarks_dir)
    by_rule: dict[str, list[dict[str, str]]] = defaultdict(list)
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).parts
        with open(path, newline="", encoding="utf-8") as handle:
            by_rule[parts[0] if len(parts) > 1 else path.stem] += csv.DictReader(
                handle, delimiter="\t"
            )
    found = []
    for rule, rows in by_rule.items():
        seconds = sum(number(row.get("s")) or 0.0 for row in rows)
        peaks = [peak for row in rows if (peak := number(row.get("max_rss"))) is not None]
        found.append((rule, len(rows), seconds, max(peaks, default=None)))
    longest = max((entry[2] for entry in found), default=0.0) or 1.0
    entries = [Timing(rule, n, s, s / longest, peak) for rule, n, s, peak in found]
    return sorted(entries, key=lambda timing: (-timing.seconds, timing.rule))


def duration(seconds: float) -> str:
    """Return a duration in words: ``0.8 s``, ``2 min 05 s``, ``3 h 20 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def read_config(path: str | Path) -> dict[str, Any]:
    """Return the resolved configuration."""
    return yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}


def without_folders(value: Any) -> Any:
    """Return a configuration value with the folders of absolute paths left out."""
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    return hide_folders(value) if isinstance(value, str) else value


def hide_folders(text: str) -> str:
    """Shorten absolute paths to their last part: ``/home/x/a.svs`` → ``…/a.svs``.

    A text that is a path as a whole may hold spaces; within a sentence a space ends a path.
    """
    if text.startswith(("/", "~/")) and "\n" not in text:
        return f"\u2026/{Path(text).name}"
    return FOLDERS.sub("\u2026/", text)


def mean_of(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that are known, or None."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def headline(rows: Sequence[dict[str, str]]) -> list[tuple[str, str, str]]:
    """Return (number, what it is, compared with what) of the delivered slides."""
    wanted = ("ciede2000_truth", "gradient_correlation_source", "style_distance_target")
    rows = [row for row in rows if row["target"] != ALL_TARGETS]
    found = []
    for name in wanted:
        metric = METRIC_BY_NAME[name]
        own = [row for row in rows if row["metric"] == name]
        values = {m: _mean_value(own, m) for m in {row["method"] for row in own}}
        if values.get("delivered") is not None:
            unit = f" {metric.unit}" if metric.unit else ""
            value = f"{values['delivered']:.{metric.digits}f}{unit}"
            found.append((value, metric.label, _compared(metric, values)))
    return found


def training_outcome(
    validation_path: str | Path | None, rows: Sequence[dict[str, str]], initial_model: str | None
) -> list[str]:
    """Return sentences on whether training helped: against its start, and the model at work.

    `rows` are those of the summary; `initial_model` is what training went on from, if anything.
    """
    sentences = []
    if validation_path is not None and Path(validation_path).is_file() and initial_model:
        sentences += _against_its_start(read_json(validation_path))
    truth = [row for row in rows if row["metric"] == "ciede2000_truth"]
    truth = [row for row in truth if row["target"] != ALL_TARGETS]
    own = _mean_value(truth, "trained")
    known = (_mean_value(truth, name) for name in ("operator", "render_1"))
    used = next((value for value in known if value is not None), None)
    if own is not None and used is not None:
        verdict = "better" if own < used - LEAST_GAIN_DE else "no better"
        sentences.append(
            f"On single tiles the model trained here ends {own:.2f} \u0394E from the truth, the "
            f"model that made the slides {used:.2f}: it is {verdict} than that one."
        )
    return sentences


def _against_its_start(validation: dict[str, Any]) -> list[str]:
    """Say what fine-tuning did to the pairs that were held out."""
    parts = [part for name, part in validation.get("parts", {}).items() if name != "train"]
    pairs = sum(part["n"] for part in parts)
    if not pairs:
        return []
    before, after = (
        sum(part["n"] * part[arm]["ciede2000"] for part in parts) / pairs
        for arm in ("untrained", "trained")
    )
    change = f"from {before:.2f} to {after:.2f} \u0394E on {pairs} held-out pairs"
    if validation.get("saved", "trained") == "trained":
        return [f"Fine-tuning moved the model {change}; the fine-tuned model is the one saved."]
    return [f"Fine-tuning did not improve the model ({change}); its start is the one saved."]


def _mean_value(rows: Sequence[dict[str, str]], method: str) -> float | None:
    return mean_of(number(row["value"]) for row in rows if row["method"] == method)


def _compared(metric: Metric, values: dict[str, float | None]) -> str:
    peers = {"identity": "untouched", "reinhard": "Reinhard", "macenko": "Macenko"}
    if metric.against == "source":
        del peers["identity"]
    others = [
        f"{label} {values[name]:.{metric.digits}f}"
        for name, label in peers.items()
        if values.get(name) is not None
    ]
    return ", ".join(others)


def score_summary(rows: Sequence[dict[str, str]]) -> list[tuple[str, int, str, str, str]]:
    """Return (column, n, lowest, median, highest) of the numeric columns of the pairs' scores."""
    summary = []
    for column in rows[0] if rows else []:
        values = [value for row in rows if (value := number(row[column])) is not None]
        if len(values) == len(rows) and column not in ("source", "target", "shard", "row"):
            low, middle, high = min(values), statistics.median(values), max(values)
            texts = map(_short, (low, middle, high))
            summary.append((column.replace("_", " "), len(values), *texts))
    return summary


def loss_summary(rows: Sequence[dict[str, str]]) -> list[tuple[str, int, str, str]]:
    """Return (phase, steps, mean loss of its first tenth, of its last tenth)."""
    phases: dict[str, list[float]] = {}
    for row in rows:
        value = number(row.get("loss"))
        if value is not None:
            phases.setdefault(row.get("phase") or "training", []).append(value)
    summary = []
    for phase, losses in phases.items():
        tenth = max(1, len(losses) // 10)
        first, last = (statistics.fmean(part) for part in (losses[:tenth], losses[-tenth:]))
        summary.append((phase, len(losses), _short(first), _short(last)))
    return summary


def _short(value: float) -> str:
    return f"{value:.3g}"
