"""Means with bootstrap intervals of a benchmark's rows, and how they compare with what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stainfuser.diffusion.benchmark_arms import MODEL_ARMS, ORACLES
from stainfuser.diffusion.head_evaluation import Row, grouped, worst_of
from stainfuser.seeds import generator
from stainfuser.stain.bootstrap import bootstrap_means
from stainfuser.stain.classical import BENCHMARK_METHODS

COLUMNS = ("arm", "data", "metric", "mean", "ci_low", "ci_high", "worst", "n")
# Ways to be held to a bound: at most a multiple of the best classical method, at least so many dB
# above it, or at most or at least a number, on average or at worst.
AT_MOST_TIMES, ABOVE, MEAN_AT_LEAST, WORST_AT_LEAST, WORST_AT_MOST, MEAN_AT_MOST = (
    "mean / best classical <=",
    "mean - best classical >=",
    "mean >=",
    "worst >=",
    "worst <=",
    "mean <=",
)


@dataclass(frozen=True)
class Bound:
    """What is asked: `metric` on `data`, `kind` of comparison, `limit`."""

    data: str
    metric: str
    kind: str
    limit: float


BOUNDS = (
    *(
        bound
        for data, factor, decibels in (
            ("phantoms", 0.6, 3.0),
            ("phantoms, same optics", 0.6, 3.0),
            ("tissue, matched", 0.45, 5.0),
            ("tissue, mismatched", 0.55, 5.0),
        )
        for bound in (
            Bound(data, "de", AT_MOST_TIMES, factor),
            Bound(data, "tissue_de", AT_MOST_TIMES, factor),
            Bound(data, "psnr", ABOVE, decibels),
        )
    ),
    Bound("fan", "de", AT_MOST_TIMES, 0.7),
    Bound("source x target", "structure", MEAN_AT_LEAST, 0.98),
    Bound("source x target", "structure", WORST_AT_LEAST, 0.95),
    Bound("source x target", "background_de", WORST_AT_MOST, 2.0),
    Bound("speed, 512 px tile", "seconds", MEAN_AT_MOST, 0.5),
    Bound("speed, 512 px tile", "times_faster_than_sd21", MEAN_AT_LEAST, 20.0),
)


def summarise_with_intervals(
    rows: Sequence[Row], seed: int, samples: int, confidence: float
) -> list[dict[str, str | float | int]]:
    """Return one row of `COLUMNS` per arm, data and metric; units are resampled first.

    A value that was measured once (a time) has no interval: its bounds are empty.
    """
    summary = []
    for (arm, data, metric), (values, units) in grouped(rows).items():
        row: dict[str, str | float | int] = {"arm": arm, "data": data, "metric": metric}
        low = high = ""
        if len(values) > 1:
            clusters = np.unique(units, return_inverse=True)[1]
            rng = generator(seed, "benchmark", "bootstrap", data, metric)
            interval = bootstrap_means(values[:, None], clusters, rng, samples, confidence)
            low, high = (round(float(x[0]), 4) for x in (interval.low, interval.high))
        row |= {"mean": round(float(values.mean()), 4), "ci_low": low, "ci_high": high}
        summary.append(row | {"worst": round(worst_of(metric, values), 4), "n": len(values)})
    return summary


def compare(summary: Sequence[Row], bounds: Sequence[Bound] = BOUNDS) -> list[Row]:
    """Hold every arm of the model to every bound it was measured for.

    Returns arm, data, metric, asked, mean, ci_low, ci_high, worst, n, best (the best classical
    method), best_mean, reached (what is compared with the limit), limit, met.
    """
    table = {(row["arm"], row["data"], row["metric"]): row for row in summary}
    compared = []
    for bound in bounds:
        for arm in MODEL_ARMS:
            row = table.get((arm, bound.data, bound.metric))
            if row is None:
                continue
            best, best_mean = _best_classical(table, bound)
            if best is None and bound.kind in (AT_MOST_TIMES, ABOVE):
                continue
            reached = _reached(bound, row, best_mean)
            compared.append(
                {
                    **row,
                    "asked": bound.kind,
                    "limit": bound.limit,
                    "reached": round(reached, 3),
                    "best": best or "",
                    "best_mean": best_mean if best else "",
                    "met": _is_met(bound, reached),
                }
            )
    return compared


def as_markdown(compared: Sequence[Row]) -> str:
    """Return a table a person can read."""
    lines = [
        "| data | metric | arm | mean (interval) | worst | n | best classical | asked | reached ||",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in compared:
        interval = f" ({_short(row['ci_low'])}-{_short(row['ci_high'])})" if row["n"] > 1 else ""
        best = f"{row['best']} {_short(row['best_mean'])}" if row["best"] else ""
        cells = [
            row["data"],
            row["metric"],
            row["arm"],
            f"{_short(row['mean'])}{interval}",
            _short(row["worst"]),
            str(row["n"]),
            best,
            f"{row['asked']} {row['limit']:g}",
            _short(row["reached"]),
            "met" if row["met"] else "NOT MET",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def as_notes(summary: Sequence[Row]) -> str:
    """Return what nothing is asked of and a reader should know: refusals, ceilings, estimates."""
    table = {(row["arm"], row["data"], row["metric"]): row for row in summary}
    lines = [
        "",
        "| degenerate input | confidence, mean (least) | change, mean CIEDE2000 (most) |",
        "|---|---|---|",
    ]
    for (arm, data, metric), row in table.items():
        if data.startswith("degenerate") and metric == "confidence":
            change = table.get((arm, data, "de"))
            moved = f"{_short(change['mean'])} ({_short(change['worst'])})" if change else ""
            name = data.removeprefix("degenerate, ")
            lines.append(f"| {name} | {_short(row['mean'])} ({_short(row['worst'])}) | {moved} |")
    lines.append("")
    asked = {bound.data for bound in BOUNDS}
    for (arm, data, metric), row in table.items():
        if arm in ORACLES and metric == "de" and data in asked:
            lines.append(f"{data}: an {arm} reaches CIEDE2000 {_short(row['mean'])}.")
        if metric.startswith("seconds_from"):
            calls = metric.removeprefix("seconds_from_").replace("_", " ")
            lines.append(f"{arm}, {data}: {row['mean']:.0f} s, extrapolated from {calls}.")
    return "\n".join([*lines, *_tokens(table)]) + "\n"


def _tokens(table: dict[tuple[str, str, str], Row]) -> list[str]:
    """Return a table of what summarising a target to fewer tokens saves and costs."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for (arm, data, metric), row in table.items():
        if data.startswith("target of "):
            rows.setdefault((arm, data), {})[metric] = _short(row["mean"])
    names = ("gflop", "gflop_remembered", "seconds", "encode_seconds", "de")
    heads = ("GFLOP", "once remembered", "seconds", "to summarise, s", "CIEDE2000 to all tokens")
    lines = ["", f"| arm | target | {' | '.join(heads)} |", f"|{'---|' * (2 + len(heads))}"]
    for (arm, data), values in rows.items():
        cells = [values.get(name, "") for name in names]
        lines.append(f"| {arm} | {data} | {' | '.join(cells)} |")
    return lines if rows else []


def _best_classical(
    table: dict[tuple[str, str, str], Row], bound: Bound
) -> tuple[str | None, float]:
    found = {
        method: float(table[method, bound.data, bound.metric]["mean"])
        for method in BENCHMARK_METHODS
        if (method, bound.data, bound.metric) in table
    }
    if not found:
        return None, float("nan")
    choose = max if bound.metric == "psnr" else min
    best = choose(found, key=lambda method: found[method])
    return best, found[best]


def _reached(bound: Bound, row: Row, best_mean: float) -> float:
    mean = float(row["mean"])
    if bound.kind == AT_MOST_TIMES:
        return mean / best_mean
    if bound.kind == ABOVE:
        return mean - best_mean
    return float(row["worst"]) if bound.kind.startswith("worst") else mean


def _is_met(bound: Bound, reached: float) -> bool:
    return reached <= bound.limit if bound.kind.endswith("<=") else reached >= bound.limit


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
