"""What the written answers of studies are made of: intervals, paired differences, sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from stainfuser.files import atomic_path, write_rows, write_text
from stainfuser.seeds import generator
from stainfuser.stain.bootstrap import bootstrap_means

COLUMNS = ("arm", "data", "metric", "value", "ci_low", "ci_high", "n")
FAINT, GRID = "#77728a", "#e6e2ec"
COLOURS = ("#8a8794", "#5a3fa0", "#c2568f", "#3f8f7a", "#d98324", "#3c55b4", "#b98a2f", "#2b2733")


class Measured(NamedTuple):
    """One number: `unit` is what was measured (paired between arms), `cluster` what units share."""

    arm: str
    data: str
    unit: str
    cluster: str
    metric: str
    value: float


class Estimate(NamedTuple):
    """A mean with its interval and the number of finite values."""

    value: float
    low: float
    high: float
    n: int

    def text(self, digits: int) -> str:
        """Return "1.23 (1.10 to 1.35)"."""
        if self.n == 0:
            return "not measured"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class StudyNumbers:
    """All numbers of a study; means and differences are bootstrapped over clusters, then units."""

    def __init__(
        self, rows: Sequence[Measured], seed: int, samples: int, confidence: float
    ) -> None:
        self.rows, self._seed = list(rows), seed
        self._samples, self.confidence = samples, confidence
        self._values = {(r.arm, r.data, r.metric, r.unit): r for r in self.rows}

    def names(self, field: str) -> list[str]:
        """Return the distinct values of a field ("arm", "data", "metric"), as they came."""
        return list(dict.fromkeys(getattr(row, field) for row in self.rows))

    def mean(self, arm: str, data: str, metric: str) -> Estimate:
        """Return the mean of an arm over its units."""
        rows = [r for r in self.rows if (r.arm, r.data, r.metric) == (arm, data, metric)]
        return self._estimate([r.value for r in rows], [r.cluster for r in rows])

    def difference(self, arm: str, other: str, data: str, metric: str) -> Estimate:
        """Return the mean of arm minus other, over the units that both have."""
        pairs = [
            (row, self._values.get((other, data, metric, row.unit)))
            for row in self.rows
            if (row.arm, row.data, row.metric) == (arm, data, metric)
        ]
        known = [(row, second) for row, second in pairs if second is not None]
        values = [row.value - second.value for row, second in known]
        return self._estimate(values, [row.cluster for row, _ in known])

    def table(self) -> list[dict[str, Any]]:
        """Return every mean as a row of the study's CSV."""
        keys = dict.fromkeys((r.arm, r.data, r.metric) for r in self.rows)
        return [dict(zip(COLUMNS, (*key, *self.mean(*key)), strict=True)) for key in keys]

    def write(self, path: str | Path) -> None:
        """Write the table as CSV."""
        rows = (
            {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
            for row in self.table()
        )
        write_rows(path, COLUMNS, rows)

    def _estimate(self, values: Sequence[float], clusters: Sequence[str]) -> Estimate:
        if not values:
            return Estimate(float("nan"), float("nan"), float("nan"), 0)
        numbers = np.unique(np.array(clusters), return_inverse=True)[1]
        rng = generator(self._seed, "study bootstrap")
        found = bootstrap_means(
            np.array(values, float)[:, None], numbers, rng, self._samples, self.confidence
        )
        return Estimate(*(float(part[0]) for part in found[:3]), int(found.count[0]))


def compared(difference: Estimate, digits: int, unit: str = "") -> str:
    """Say in words whether a difference is one: "higher by 0.51 (0.22 to 0.83)"."""
    if difference.n == 0:
        return "not measured"
    amount = f"{abs(difference.value):.{digits}f}{unit}"
    spread = f"({difference.low:+.{digits}f} to {difference.high:+.{digits}f})"
    if difference.low > 0:
        return f"higher by {amount} {spread}"
    if difference.high < 0:
        return f"lower by {amount} {spread}"
    return f"not told apart: {difference.value:+.{digits}f}{unit} {spread}"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def write_answer(path: str | Path, title: str, sections: Sequence[tuple[str, str]]) -> None:
    """Write a study's answer: a title and headed sections, as Markdown."""
    parts = [f"# {title}", *(f"## {head}\n\n{body}" for head, body in sections)]
    write_text(path, "\n\n".join(parts) + "\n")


def draw_estimates(
    path: str | Path,
    numbers: StudyNumbers,
    panels: Sequence[tuple[str, str]],
    arms: Sequence[str] | None = None,
) -> None:
    """Draw a panel per (metric, title): a row per arm, a dot with its interval per kind of data."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = list(arms or numbers.names("arm"))
    kinds = numbers.names("data")
    height = 1.1 + 0.24 * max(len(arms), 1) * max(1.0, len(kinds) / 2.5)
    figure = Figure(figsize=(2.6 + 2.9 * len(panels), height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    offsets = np.linspace(-0.3, 0.3, len(kinds)) if len(kinds) > 1 else [0.0]
    for panel, (metric, title) in zip(axes, panels, strict=True):
        for kind, offset, colour in zip(kinds, offsets, COLOURS * len(kinds), strict=False):
            for row, arm in enumerate(arms):
                estimate = numbers.mean(arm, kind, metric)
                if estimate.n:
                    y = row + offset
                    ends = [estimate.low, estimate.high]
                    panel.plot(ends, [y, y], color=colour, lw=2, alpha=0.5)
                    panel.plot(estimate.value, y, "o", ms=4.5, color=colour, mec="white", mew=0.6)
        panel.set_title(title, fontsize=9, loc="left")
        panel.set_yticks(range(len(arms)), arms)
        panel.set_ylim(len(arms) - 0.4, -0.6)
        panel.tick_params(labelsize=8, length=0)
        panel.grid(axis="x", color=GRID, lw=0.8)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
    for kind, colour in zip(kinds, COLOURS * len(kinds), strict=False):
        axes[0].plot([], [], "o", color=colour, label=kind, ms=4.5)
    if len(kinds) > 1:
        figure.legend(
            loc="outside lower center", ncols=min(len(kinds), 5), frameon=False, fontsize=8
        )
    caption = f"Mean and {numbers.confidence:.0%} bootstrap interval"
    figure.suptitle(caption, fontsize=8, color=FAINT, x=0.01, ha="left")
    with atomic_path(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None}, facecolor="white")
