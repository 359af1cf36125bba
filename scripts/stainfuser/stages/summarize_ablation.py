"""Condense the outcomes of all instances of the ablation, and draw every axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.ablation_plan import AXES
from stainfuser.files import atomic_path, read_json, write_rows
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.bootstrap import bootstrap_means

COLUMNS = (*AXES, "metric", "value", "ci_low", "ci_high", "n", "failure")
MAGNIFICATIONS = {"40x": "#5a3fa0", "20x": "#c2568f"}
MEASURED, UNTOUCHED, STRUCTURE = "ciede2000_truth", "ciede2000_untouched", "gradient_correlation"
FAINT, GRID = "#77728a", "#e6e2ec"


def summarize_ablation(
    *,
    outcome_paths: Sequence[str | Path],
    summary_path: str | Path,
    figure_paths: Sequence[str | Path],
    seed: int,
    centre: Mapping[str, Any],
    crossed: Sequence[Sequence[str]],
    bootstrap_samples: int,
    confidence: float,
) -> None:
    """Write means with intervals over test pairs, and a figure per axis.

    Parameters
    ----------
    outcome_paths
        What `train_ablation` wrote, one per instance.
    summary_path
        CSV with `COLUMNS`. A failed instance has one row, without metric, that says why.
    figure_paths
        ``<axis>.png``: the instances that differ from the centre in that axis, and in axes that it
        is crossed with.
    centre, crossed
        As in `ablation_plan.plan_instances`.
    """
    outcomes = [read_json(path) for path in outcome_paths]
    rows = [
        row
        for outcome in outcomes
        for row in _summarise(outcome, seed, bootstrap_samples, confidence)
    ]
    texts = ({key: _text(value) for key, value in row.items()} for row in rows)
    write_rows(summary_path, COLUMNS, texts)
    for outcome in outcomes:
        if outcome["failure"]:
            LOGGER.warning("%s: %s", name_of(outcome["instance"], centre), outcome["failure"])
    failed = sum(bool(outcome["failure"]) for outcome in outcomes)
    LOGGER.info("%d instances, %d of them failed", len(outcomes), failed)
    for path in figure_paths:
        axis = Path(path).stem
        partners = [name for group in crossed if axis in group for name in group if name != axis]
        _draw(Path(path), _placed(rows, axis, partners, centre), confidence)


def name_of(instance: Mapping[str, Any], centre: Mapping[str, Any]) -> str:
    """Return what an instance differs in from the centre, in words."""
    other = [f"{axis} {instance[axis]}" for axis in AXES if instance[axis] != centre[axis]]
    return ", ".join(other) or "the centre"


def _summarise(
    outcome: Mapping[str, Any], seed: int, samples: int, confidence: float
) -> list[dict[str, Any]]:
    empty = dict.fromkeys(("metric", "value", "ci_low", "ci_high"), "")
    if outcome["failure"] or not outcome["rows"]:
        reason = outcome["failure"] or "nothing was measured"
        return [{**outcome["instance"], **empty, "n": 0, "failure": reason}]
    metrics = list(dict.fromkeys(row["metric"] for row in outcome["rows"]))
    pairs = {row["pair"]: row["laboratory"] for row in outcome["rows"]}
    found = {(row["pair"], row["metric"]): row["value"] for row in outcome["rows"]}
    values = np.array([[found[pair, metric] for metric in metrics] for pair in pairs], float)
    clusters = np.array(list(pairs.values()))
    rng = generator(seed, "ablation bootstrap")
    interval = bootstrap_means(values, clusters, rng, samples, confidence)
    return [
        {
            **outcome["instance"],
            "metric": metric,
            "value": float(interval.mean[column]),
            "ci_low": float(interval.low[column]),
            "ci_high": float(interval.high[column]),
            "n": int(interval.count[column]),
            "failure": "",
        }
        for column, metric in enumerate(metrics)
    ]


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _placed(
    rows: Sequence[Mapping[str, Any]],
    axis: str,
    partners: Sequence[str],
    centre: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return the rows of an axis with the label of their place in its figure, in order."""
    others = [name for name in AXES if name != axis and name not in partners]
    chosen = [row for row in rows if all(row[name] == centre[name] for name in others)]

    def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
        value = row[axis] if isinstance(row[axis], int) else str(row[axis])
        return (*(row[name] for name in partners), value)

    def label(row: Mapping[str, Any]) -> str:
        apart = [f"{name} {row[name]}" for name in partners if row[name] != centre[name]]
        own = [] if apart or row[axis] != centre[axis] else ["(centre)"]
        return "\n".join([str(row[axis]), *apart, *own])

    return [{**row, "place": label(row)} for row in sorted(chosen, key=key)]


def _draw(path: Path, rows: Sequence[Mapping[str, Any]], confidence: float) -> None:
    """Draw colour error and structure against the values of the axis the file is named for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = list(dict.fromkeys(row["place"] for row in rows))
    width = max(7.6, 1.6 * len(places) + 2.0)
    figure = Figure(figsize=(width, 3.3), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    colour, structure = figure.subplots(1, 2)
    for magnification, tint in MAGNIFICATIONS.items():
        for panel, metric in ((colour, MEASURED), (structure, STRUCTURE)):
            points = _points(rows, f"{metric}_{magnification}", places)
            _draw_points(panel, points, tint, f"measured at {magnification}")
        reference = _points(rows, f"{UNTOUCHED}_{magnification}", places)
        if reference:
            colour.axhline(reference[0][1], color=tint, lw=1, ls=":")
    for row in rows:
        if row["failure"]:
            x, y = places.index(row["place"]), 0.04
            where = colour.get_xaxis_transform()
            colour.text(x, y, "failed", ha="center", fontsize=8, color=FAINT, transform=where)
    colour.set_title(
        "Colour error to the truth, \u0394E (dotted: untouched)", fontsize=9, loc="left"
    )
    structure.set_title("Gradient correlation with the source", fontsize=9, loc="left")
    for panel in (colour, structure):
        _style(panel, places, path.stem)
    colour.set_ylim(bottom=0)
    caption = f"Mean and {confidence:.0%} bootstrap interval over test pairs"
    figure.suptitle(caption, fontsize=8, color=FAINT, x=0.01, ha="left")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None}, facecolor="white")


def _points(
    rows: Sequence[Mapping[str, Any]], metric: str, places: Sequence[str]
) -> list[tuple[int, float, float, float]]:
    """Return place, mean and interval of every instance that has the metric."""
    return [
        (places.index(row["place"]), row["value"], row["ci_low"], row["ci_high"])
        for row in rows
        if row["metric"] == metric
    ]


def _draw_points(
    panel: Any, points: Sequence[tuple[int, float, float, float]], tint: str, label: str
) -> None:
    offset = 0.06 if label.endswith("20x") else -0.06
    for place, mean, low, high in points:
        panel.plot([place + offset] * 2, [low, high], color=tint, lw=2.2, alpha=0.5)
        panel.plot(place + offset, mean, "o", color=tint, ms=6, mec="white", mew=0.8)
    if points:
        panel.plot([], [], "o", color=tint, label=label)


def _style(panel: Any, places: Sequence[str], axis: str) -> None:
    panel.set_xticks(range(len(places)), places)
    panel.set_xlim(-0.6, max(len(places), 1) - 0.4)
    panel.set_xlabel(AXES[axis], fontsize=9)
    panel.tick_params(labelsize=8, length=0)
    panel.grid(axis="y", color=GRID, lw=0.8)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    if panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8)
