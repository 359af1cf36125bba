"""One picture of a benchmark: the colour error of every arm on every kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stainfuser.diffusion.benchmark_arms import IDENTITY, MODEL_ARMS, ORACLES
from stainfuser.diffusion.benchmark_summary import AT_MOST_TIMES, BOUNDS
from stainfuser.diffusion.head_evaluation import Row
from stainfuser.files import atomic_path
from stainfuser.stain.classical import BENCHMARK_METHODS

ORDER = (IDENTITY, *BENCHMARK_METHODS, *MODEL_ARMS, *ORACLES)
PEER_COLOUR, MODEL_COLOUR, WORST_COLOUR, LIMIT_COLOUR = "#8a8496", "#7b2d8e", "#c9c4d2", "#1f7a4d"
METRIC, LABEL = "de", "CIEDE2000 to the truth"


def plot_errors(path: str | Path, summary: Sequence[Row]) -> None:
    """Draw means with their intervals, the worst case, and the largest mean that is asked for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    table = {(row["arm"], row["data"]): row for row in summary if row["metric"] == METRIC}
    limits = {b.data: b.limit for b in BOUNDS if b.metric == METRIC and b.kind == AT_MOST_TIMES}
    shown = [data for data in limits if any((arm, data) in table for arm in MODEL_ARMS)]
    figure = Figure(figsize=(3.1 * max(len(shown), 1) + 1.2, 3.1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, max(len(shown), 1), sharey=True, squeeze=False)[0]
    arms = [arm for arm in ORDER if any((arm, data) in table for data in shown)]
    for panel, data in zip(panels, shown, strict=False):
        _draw_panel(panel, data, arms, table, limits[data])
    panels[0].set_yticks(range(len(arms)), arms)
    panels[0].set_ylim(max(len(arms), 1) - 0.5, -0.5)
    figure.supxlabel(f"{LABEL}: mean with interval, worst case (cross), asked for (line)", size=9)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=150, format="png", metadata={"Software": None})


def _draw_panel(panel: object, data: str, arms: Sequence[str], table: dict, limit: float) -> None:
    for y, arm in enumerate(arms):
        row = table.get((arm, data))
        if row is None:
            continue
        mean, colour = row["mean"], MODEL_COLOUR if arm in MODEL_ARMS else PEER_COLOUR
        ends = [[mean - (row["ci_low"] or mean)], [(row["ci_high"] or mean) - mean]]
        panel.errorbar(mean, y, xerr=ends, fmt="o", color=colour, ms=5, lw=1.6)
        panel.plot(row["worst"], y, "x", color=WORST_COLOUR, ms=5)
    peers = [table[m, data]["mean"] for m in BENCHMARK_METHODS if (m, data) in table]
    if peers:
        panel.axvline(limit * min(peers), color=LIMIT_COLOUR, lw=1.2, ls="--")
    panel.set_title(data, size=10)
    panel.set_xlim(left=0)
    panel.grid(axis="x", color="#eceaf0")
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
