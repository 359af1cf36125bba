"""Condense the long metric table to means with intervals, and draw them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.evaluation_arms import ARMS, arm_named, reference_arm
from stainfuser.evaluation_terms import (
    ALL_TARGETS,
    METRIC_BY_NAME,
    SUMMARY_COLUMNS,
    Metric,
    known_order,
    paired_name,
)
from stainfuser.files import atomic_path, write_table
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.bootstrap import bootstrap_means

if TYPE_CHECKING:
    import pandas as pd

AGAINST_TITLES = {
    "truth": "Near the truth?",
    "source": "Still the same tissue?",
    "target": "Like the target?",
}
INK, FAINT, GRID = "#26222f", "#77728a", "#e6e2ec"
# Height of a row of the figure and offset of several targets within it, inches and rows.
ROW_INCH, TARGET_SPREAD = 0.30, 0.44
# With more arms than this their rows are closer.
MANY_ARMS, CLOSE_ROW_INCH = 12, 0.19
COLUMNS, PANEL_WIDTH_INCH = 4, 2.9


def summarize_evaluation(
    *,
    table_paths: Sequence[str | Path],
    distribution_path: str | Path,
    summary_path: str | Path,
    figure_path: str | Path,
    seed: int,
    bootstrap_samples: int,
    confidence: float,
) -> None:
    """Write means with bootstrap intervals, and the overview figure.

    Parameters
    ----------
    table_paths
        What `measure_arm` wrote, one table per arm.
    distribution_path
        What `measure_distribution` wrote; its rows are taken over.
    summary_path
        CSV with the columns of `evaluation_terms.SUMMARY_COLUMNS`: the mean over all tiles of an
        arm and target, its interval, and the number of tiles that have a value. A metric called
        ``x_minus_delivered`` is the mean of an arm's x less that of the delivered slide (of the
        operator, where no slide was delivered) over the tiles that both have. With several targets
        the target ``(all)`` pools them.
    figure_path
        PNG: every metric, method and target with its interval.
    seed
        Draws the resamples.
    bootstrap_samples, confidence
        Number of resamples and coverage of the intervals; see `stain.bootstrap`.
    """
    import pandas as pd

    table = pd.concat([pd.read_parquet(path) for path in table_paths], ignore_index=True)
    distribution = pd.read_csv(distribution_path)
    draws = (seed, bootstrap_samples, confidence)
    parts = [(str(target), part) for target, part in table.groupby("target", sort=True)]
    if len(parts) > 1:
        parts.append((ALL_TARGETS, _pooled(table)))
    rows = [row for target, part in parts for row in _summarize_target(target, part, *draws)]
    summary = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    if len(distribution):
        summary = _in_order(pd.concat([summary, distribution], ignore_index=True))
    write_table(summary_path, summary)
    _name_undefined(table)
    shown = summary[summary["target"] != ALL_TARGETS]
    _draw_overview(shown, figure_path, confidence, table["slide"].nunique())
    LOGGER.info("%d tiles, %d numbers", len(_tile_keys(table)), len(summary))


def _tile_keys(table: pd.DataFrame) -> pd.DataFrame:
    return table[["slide", "tile", "target"]].drop_duplicates()


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of all targets as those of one; a tile is another one to every target."""
    tile = table["target"] + "\x1f" + table["tile"].astype(str)
    return table.assign(tile=tile).drop(columns="target")


def _in_order(summary: pd.DataFrame) -> pd.DataFrame:
    """Sort by target, arm and metric in their usual order."""
    keys = {
        "target": sorted(set(summary["target"]) - {ALL_TARGETS}) + [ALL_TARGETS],
        "method": known_order(summary["method"], ARMS),
        "metric": known_order(summary["metric"], METRIC_BY_NAME),
    }
    ranks = {name: summary[name].map({v: i for i, v in enumerate(o)}) for name, o in keys.items()}
    order = np.lexsort([ranks[name] for name in ("metric", "method", "target")])
    return summary.iloc[order].reset_index(drop=True)


def _name_undefined(table: pd.DataFrame) -> None:
    """Log which metrics of which arms were counted out, and why."""
    missing = table[~np.isfinite(table["value"].astype(float))]
    for (method, metric, note), part in missing.groupby(["method", "metric", "note"]):
        whole = len(table[(table["method"] == method) & (table["metric"] == metric)])
        LOGGER.warning("%s, %s: %d of %d tiles: %s", method, metric, len(part), whole, note)


def _summarize_target(
    target: str, table: pd.DataFrame, seed: int, samples: int, confidence: float
) -> list[tuple[Any, ...]]:
    """Return the rows of one target, arms and metrics in their usual order."""
    wide = table.pivot(index=["slide", "tile"], columns=["method", "metric"], values="value")
    wide = wide.sort_index()
    measured = table[["method", "metric"]].drop_duplicates()
    methods = known_order(measured["method"], ARMS)
    columns = {key: wide[key].to_numpy(float) for key in wide.columns}
    columns |= _differences(columns, methods)
    metrics = known_order({metric for _, metric in columns}, METRIC_BY_NAME)
    keys = [(m, name) for m in methods for name in metrics if (m, name) in columns]
    slides = wide.index.get_level_values("slide").factorize()[0]
    values = np.stack([columns[key] for key in keys], axis=1)
    found = bootstrap_means(
        values, slides, generator(seed, "bootstrap", target), samples, confidence
    )
    return [
        (method, target, metric, *(part[index].item() for part in found))
        for index, (method, metric) in enumerate(keys)
    ]


def _differences(
    columns: dict[tuple[str, str], NDArray[np.float64]], methods: Sequence[str]
) -> dict[tuple[str, str], NDArray[np.float64]]:
    """Return what each arm has more than ours, tile by tile, for the metrics that rank."""
    ours = reference_arm(methods)
    if ours is None:
        return {}
    return {
        (method, paired_name(metric, ours)): values - columns[ours, metric]
        for (method, metric), values in columns.items()
        if method != ours and (ours, metric) in columns
        if metric in METRIC_BY_NAME and METRIC_BY_NAME[metric].is_ranking
    }


def _draw_overview(summary: pd.DataFrame, path: str | Path, confidence: float, slides: int) -> None:
    """Draw a panel per metric, a row per method, a dot with its interval per target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    present = known_order(summary["metric"], METRIC_BY_NAME)
    metrics = [METRIC_BY_NAME[name] for name in present if name in METRIC_BY_NAME]
    methods = known_order(summary["method"], ARMS)
    rows = max(1, -(-len(metrics) // COLUMNS))
    row_inch = ROW_INCH if len(methods) <= MANY_ARMS else CLOSE_ROW_INCH
    targets = sorted(summary["target"].unique())
    panel_inch = 0.95 + row_inch * max(1, len(methods)) * max(1.0, len(targets) / 3)
    figure = Figure(
        figsize=(COLUMNS * PANEL_WIDTH_INCH + 0.8, rows * panel_inch + 0.7),
        dpi=150,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    caption = f"Mean over tiles and {confidence:.0%} bootstrap interval, slides: {slides}"
    if len(targets) > 1:
        caption += f"; targets from top to bottom: {', '.join(targets)}"
    title = caption if metrics else "No tile could be evaluated"
    figure.suptitle(title, fontsize=9, color=FAINT, x=0.01, ha="left")
    for index, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, COLUMNS, index + 1)
        part = summary[summary["metric"] == metric.name]
        _draw_panel(axes, metric, part, methods, show_names=index % COLUMNS == 0)
    with atomic_path(path) as partial:
        # Without the version of matplotlib the file's bytes depend on its pixels alone.
        figure.savefig(partial, format="png", metadata={"Software": None}, facecolor="white")


def _draw_panel(
    axes: Any, metric: Metric, part: pd.DataFrame, methods: list[str], show_names: bool
) -> None:
    targets = sorted(part["target"].unique())
    offsets = np.linspace(-1, 1, len(targets)) * TARGET_SPREAD / 2 if len(targets) > 1 else [0.0]
    for target, offset in zip(targets, offsets, strict=True):
        own = part[part["target"] == target].set_index("method")
        for row, method in enumerate(methods):
            # What is perfectly like the source would only stretch the scale.
            is_trivial = metric.against == "source" and method in ("identity", "vae")
            if not is_trivial and method in own.index and np.isfinite(own.loc[method, "value"]):
                _draw_dot(axes, own.loc[method], row + offset, arm_named(method).colour)
    _style_panel(axes, metric, methods, show_names)


def _draw_dot(axes: Any, numbers: pd.Series, y: float, colour: str) -> None:
    axes.plot([numbers["ci_low"], numbers["ci_high"]], [y, y], color=colour, lw=2.2, alpha=0.55)
    axes.plot(numbers["value"], y, "o", ms=5.5, color=colour, mec="white", mew=0.8)


def _style_panel(axes: Any, metric: Metric, methods: list[str], show_names: bool) -> None:
    arrow = "higher is better \u2192" if metric.is_higher_better else "\u2190 lower is better"
    unit = f", {metric.unit}" if metric.unit else ""
    axes.set_title(AGAINST_TITLES[metric.against], fontsize=8, color=FAINT, loc="left", pad=17)
    axes.set_title(arrow, fontsize=7, color=FAINT, loc="right", pad=17)
    axes.text(0, 1.02, metric.label + unit, transform=axes.transAxes, fontsize=9.5, color=INK)
    axes.set_yticks(
        range(len(methods)), [arm_named(name).label for name in methods] if show_names else []
    )
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.margins(x=0.08)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.grid(color=GRID, lw=0.8)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
