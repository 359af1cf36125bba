"""Condense the long metric table to means with intervals, and draw them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stainfuser.evaluation_arms import ARMS, arm_named
from stainfuser.evaluation_terms import METRIC_BY_NAME, SUMMARY_COLUMNS, Metric, known_order
from stainfuser.files import atomic_path
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


def summarize_evaluation(
    *,
    table_paths: Sequence[str | Path],
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
    summary_path
        CSV with the columns of `evaluation_terms.SUMMARY_COLUMNS`: the mean over all tiles of an
        arm and target, its interval, and the number of tiles that have a value.
    figure_path
        PNG: every metric, method and target with its interval.
    seed
        Draws the resamples.
    bootstrap_samples, confidence
        Number of resamples and coverage of the intervals; see `stain.bootstrap`.
    """
    import pandas as pd

    table = pd.concat([pd.read_parquet(path) for path in table_paths], ignore_index=True)
    parts = [
        _summarize_target(str(target), part, seed, bootstrap_samples, confidence)
        for target, part in table.groupby("target", sort=True)
    ]
    rows = [row for part in parts for row in part]
    summary = pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))
    with atomic_path(summary_path) as partial:
        summary.to_csv(partial, index=False, lineterminator="\n", float_format="%.6g")
    _draw_overview(summary, figure_path, confidence, table["slide"].nunique())
    LOGGER.info("%d tiles, %d numbers", len(_tile_keys(table)), len(summary))


def _tile_keys(table: pd.DataFrame) -> pd.DataFrame:
    return table[["slide", "tile", "target"]].drop_duplicates()


def _summarize_target(
    target: str, table: pd.DataFrame, seed: int, samples: int, confidence: float
) -> list[tuple[Any, ...]]:
    """Return the rows of one target, methods and metrics in their usual order."""
    wide = table.pivot(index=["slide", "tile"], columns=["method", "metric"], values="value")
    measured = table[["method", "metric"]].drop_duplicates()
    slides = wide.index.get_level_values("slide").factorize()[0]
    rng = generator(seed, "bootstrap", target)
    found = bootstrap_means(wide.to_numpy(float), slides, rng, samples, confidence)
    position = {column: index for index, column in enumerate(wide.columns)}
    rows = []
    for method in known_order(measured["method"], ARMS):
        for metric in known_order(measured["metric"], METRIC_BY_NAME):
            if (method, metric) in position:
                column = position[method, metric]
                values = (part[column].item() for part in found)
                rows.append((method, target, metric, *values))
    return rows


def _draw_overview(summary: pd.DataFrame, path: str | Path, confidence: float, slides: int) -> None:
    """Draw a panel per metric, a row per method, a dot with its interval per target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = [METRIC_BY_NAME[name] for name in known_order(summary["metric"], METRIC_BY_NAME)]
    methods = known_order(summary["method"], ARMS)
    columns = 3
    rows = max(1, -(-len(metrics) // columns))
    targets = sorted(summary["target"].unique())
    panel_inch = 0.95 + ROW_INCH * max(1, len(methods)) * max(1.0, len(targets) / 3)
    figure = Figure(figsize=(9.4, rows * panel_inch + 0.7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    caption = f"Mean over tiles and {confidence:.0%} bootstrap interval, slides: {slides}"
    if len(targets) > 1:
        caption += f"; targets from top to bottom: {', '.join(targets)}"
    title = caption if metrics else "No tile could be evaluated"
    figure.suptitle(title, fontsize=9, color=FAINT, x=0.01, ha="left")
    for index, metric in enumerate(metrics):
        axes = figure.add_subplot(rows, columns, index + 1)
        part = summary[summary["metric"] == metric.name]
        _draw_panel(axes, metric, part, methods, show_names=index % columns == 0)
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
            # The source is perfectly like itself: its dot would only stretch the scale.
            is_trivial = method == "identity" and metric.against == "source"
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
