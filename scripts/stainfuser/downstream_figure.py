"""The figure of the downstream task: mPQ+ of every arm, beside doing nothing and the ceiling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stainfuser.evaluation_arms import arm_named
from stainfuser.files import atomic_path

INK, FAINT, GRID = "#2b2733", "#8a8794", "#e6e3ea"
ROW_INCH = 0.27
PANELS = (
    ("mpq_plus_mean", "mPQ+, mean over references\n(bar: worst reference)"),
    ("mpq_plus_gain", "gain over untouched, same tiles"),
)


def draw_downstream(
    path: str | Path, summary: pd.DataFrame, labels: Mapping[str, str], confidence: float
) -> None:
    """Write a PNG with a row per arm of the summary table and a panel per measure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 1.4 + ROW_INCH * len(labels)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    datasets = ", ".join(name for name in dict.fromkeys(summary["dataset"]) if name)
    title = f"Nuclei segmented and classified after normalising ({datasets}); "
    title += f"dots with {confidence:.0%} bootstrap interval of tissue, hollow: fewer tiles"
    figure.suptitle(title, fontsize=9, color=FAINT, x=0.01, ha="left")
    most = int(summary["n"].max()) if len(summary) else 0
    for index, (metric, name) in enumerate(PANELS):
        axes = figure.add_subplot(1, len(PANELS), index + 1)
        rows = summary[summary["metric"] == metric].set_index("method")
        worst = summary[summary["metric"] == "mpq_plus_worst"].set_index("method")
        for y, arm in enumerate(labels):
            if arm in rows.index and np.isfinite(rows.loc[arm, "value"]):
                _draw_row(axes, rows.loc[arm], y, arm_named(arm).colour, most)
                if index == 0:
                    axes.plot(worst.loc[arm, "value"], y, "|", ms=9, color=arm_named(arm).colour)
            elif index == 0:
                place = axes.get_yaxis_transform()
                axes.text(
                    0.02, y, "not run", fontsize=7.5, color=FAINT, va="center", transform=place
                )
        _style(axes, name, list(labels.values()) if index == 0 else [], len(labels))
        _draw_references(axes, rows, index)
    with atomic_path(path) as partial:
        # Without the version of matplotlib the file's bytes depend on its pixels alone.
        figure.savefig(partial, format="png", metadata={"Software": None}, facecolor="white")


def _draw_row(axes: Any, numbers: pd.Series, y: int, colour: str, most: int) -> None:
    axes.plot([numbers["ci_low"], numbers["ci_high"]], [y, y], color=colour, lw=2.2, alpha=0.55)
    face = colour if numbers["n"] == most else "white"
    axes.plot(numbers["value"], y, "o", ms=5.5, color=colour, mfc=face, mew=1.0)


def _draw_references(axes: Any, rows: pd.DataFrame, index: int) -> None:
    """Mark doing nothing, and the tiles in the training stain."""
    if index:
        axes.axvline(0.0, color=FAINT, lw=0.9, ls=":")
        return
    for arm in ("identity", "training_stain"):
        if arm in rows.index and np.isfinite(rows.loc[arm, "value"]):
            axes.axvline(rows.loc[arm, "value"], color=FAINT, lw=0.9, ls=":", zorder=0)


def _style(axes: Any, title: str, names: list[str], count: int) -> None:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left")
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_yticks(range(count), names or [""] * count, fontsize=8, color=INK)
    axes.tick_params(axis="x", labelsize=7.5, colors=FAINT)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, lw=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
