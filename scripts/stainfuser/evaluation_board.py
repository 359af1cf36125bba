"""Which arm wins on what, and where StainFuser loses: one table and sentences, from the numbers.

Arms are compared through their differences to ours on the tiles of both, so that an arm that was
given fewer tiles is not judged by which tiles those were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stainfuser.evaluation_arms import ARMS, OURS, Arm, arm_named, reference_arm
from stainfuser.evaluation_terms import (
    ALL_TARGETS,
    METRIC_BY_NAME,
    known_order,
    number,
    paired_name,
)

SPEED, DOWNSTREAM = "seconds_per_megapixel", "mpq_plus_mean"


@dataclass(frozen=True)
class Question:
    """One thing that arms are asked for: column title, metric, unit, digits and direction.

    `winner` begins the sentence that names the best arm; `worse` says of an arm that it is behind.
    """

    name: str
    title: str
    metric: str
    unit: str
    digits: int
    is_higher_better: bool
    winner: str


def _asked(name: str, title: str, metric: str, winner: str) -> Question:
    known = METRIC_BY_NAME[metric]
    return Question(name, title, metric, known.unit, known.digits, known.is_higher_better, winner)


QUESTIONS = (
    _asked("truth", "Truth", "ciede2000_truth", "Nearest to the truth"),
    _asked("structure", "Structure", "gradient_correlation_source", "Most faithful to every edge"),
    _asked("detail", "Invented detail", "invented_structure_source", "Least invented detail"),
    _asked("style", "Style", "style_distance_target", "Nearest to the target's stain"),
    Question(
        "downstream", "Downstream", DOWNSTREAM, "mPQ+", 3, True, "Best nuclei found downstream"
    ),
    Question("speed", "Speed", SPEED, "s per MPix", 2, False, "Fastest"),
)


@dataclass(frozen=True)
class Value:
    """A number of an arm with its interval (equal to it where there is none) and count.

    `difference`, `difference_low`, `difference_high`: to our arm, on the tiles of both, if known.
    """

    value: float
    low: float
    high: float
    n: int
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None


@dataclass(frozen=True)
class BoardRow:
    """One arm: its words, number of tiles, and question → value; `best` are those it wins."""

    arm: Arm
    tiles: int
    values: dict[str, Value]
    best: frozenset[str]


@dataclass(frozen=True)
class Board:
    """The first screen: questions that can be answered, rows, sentences, and arms without rows.

    `ours` is the arm that stands for StainFuser; `missing` holds (arm, state, reason).
    """

    questions: list[Question]
    rows: list[BoardRow]
    ours: Arm | None
    wins: list[str]
    losses: list[str]
    missing: list[tuple[Arm, str, str]]


def make_board(
    summary: Sequence[Mapping[str, str]],
    records: Sequence[Mapping[str, Any]],
    downstream: Sequence[Mapping[str, str]] = (),
) -> Board:
    """Return the board.

    Parameters
    ----------
    summary
        Rows of ``evaluation/summary.csv``; with several targets, those that pool them count.
    records
        The arms' JSON: state, failure and speed.
    downstream
        Rows of ``evaluation/downstream/summary.csv``, if any.
    """
    table = _by_metric(summary)
    done = {str(r["arm"]) for r in records if r["state"] == "done"} or set(table)
    ours = reference_arm([name for name in done if name in table])
    values = {name: _values(table, ours, name) for name in known_order(table, ARMS) if name in done}
    _add_speed(values, records)
    _add_downstream(values, downstream)
    asked = [q for q in QUESTIONS if any(q.name in own for own in values.values())]
    winners = {q.name: _winner(q, values, ours) for q in asked}
    rows = [
        BoardRow(
            arm_named(name),
            max((v.n for v in own.values()), default=0),
            own,
            frozenset(q for q, winner in winners.items() if winner == name),
        )
        for name, own in values.items()
        if own
    ]
    missing = [
        (arm_named(str(r["arm"])), str(r["state"]), str(r["failure"] or ""))
        for r in records
        if r["state"] != "done"
    ]
    wins = [s for q in asked if (s := _win(q, values, winners[q.name], ours))]
    losses = [s for q in asked if (s := _loss(q, values, ours))] if ours else []
    return Board(asked, rows, arm_named(ours) if ours else None, wins, losses, missing)


def _by_metric(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[str, Mapping[str, str]]]:
    """Return arm → metric → row, of the only target, or of all targets pooled."""
    targets = {row["target"] for row in rows}
    chosen = ALL_TARGETS if ALL_TARGETS in targets else next(iter(targets), "")
    table: dict[str, dict[str, Mapping[str, str]]] = {}
    for row in rows:
        if row["target"] == chosen:
            table.setdefault(row["method"], {})[row["metric"]] = row
    return table


def _values(
    table: Mapping[str, Mapping[str, Mapping[str, str]]], ours: str | None, name: str
) -> dict[str, Value]:
    found = {}
    for question in QUESTIONS:
        row = table[name].get(question.metric)
        paired = table[name].get(paired_name(question.metric, ours)) if ours else None
        value = _value(row, paired)
        if value is not None:
            found[question.name] = value
    return found


def _value(row: Mapping[str, str] | None, paired: Mapping[str, str] | None) -> Value | None:
    if row is None or number(row["value"]) is None:
        return None
    mean, low, high = (number(row[key]) for key in ("value", "ci_low", "ci_high"))
    known = (number(paired[key]) for key in ("value", "ci_low", "ci_high")) if paired else ()
    assert mean is not None
    ends = (mean if low is None else low, mean if high is None else high)
    return Value(mean, *ends, int(float(row["n"])), *known)


def _add_speed(values: dict[str, dict[str, Value]], records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        rate = number(record.get(SPEED))
        if rate is not None and str(record["arm"]) in values and record["arm"] != "identity":
            values[str(record["arm"])]["speed"] = Value(rate, rate, rate, int(record["tiles"]))


def _add_downstream(
    values: dict[str, dict[str, Value]], downstream: Sequence[Mapping[str, str]]
) -> None:
    rows = {row["method"]: _value(row, None) for row in downstream if row["metric"] == DOWNSTREAM}
    # Slow arms see other tiles: their values are not to be ranked among the others.
    most = max((value.n for value in rows.values() if value is not None), default=0)
    for method, value in rows.items():
        if value is not None and value.n == most and method in values:
            values[method]["downstream"] = value


def _key(question: Question, value: Value, ours: Value | None) -> float:
    """Return by what an arm is ranked, lower first: its value on the tiles that ours has."""
    level = value.value
    if ours is not None and value.difference is not None:
        level = ours.value + value.difference
    return -level if question.is_higher_better else level


def _ranked(
    question: Question, values: Mapping[str, Mapping[str, Value]], ours: str | None
) -> list[str]:
    """Return competing arms, best first."""
    own = values[ours].get(question.name) if ours else None
    competing = [
        name for name in values if arm_named(name).competes and question.name in values[name]
    ]
    return sorted(competing, key=lambda name: _key(question, values[name][question.name], own))


def _winner(
    question: Question, values: Mapping[str, Mapping[str, Value]], ours: str | None
) -> str | None:
    return next(iter(_ranked(question, values, ours)), None)


def _shown(question: Question, value: float) -> str:
    unit = f" {question.unit}" if question.unit and question.name != "downstream" else ""
    return f"{value:.{question.digits}f}{unit}"


def _win(
    question: Question,
    values: Mapping[str, Mapping[str, Value]],
    winner: str | None,
    ours: str | None,
) -> str | None:
    """Return the sentence that names the best arm, and how far ours is from it."""
    if winner is None:
        return None
    best = values[winner][question.name]
    text = f"{question.winner}: {arm_named(winner).label} ({_shown(question, best.value)}"
    if best.low < best.high:
        text += f", {best.low:.{question.digits}f} to {best.high:.{question.digits}f}"
    text += ")"
    mine = _ours_in(question, values, ours)
    if mine is None or mine == winner:
        second = _ranked(question, values, ours)[1:2]
        rest = [f"; next is {_named(question, values, name)}" for name in second]
        return text + "".join(rest) + "."
    text += f"; {_named(question, values, mine)}"
    if best.difference is not None and not _is_told_apart(best):
        text += ", which these tiles do not tell apart"
    return text + "."


def _named(question: Question, values: Mapping[str, Mapping[str, Value]], name: str) -> str:
    return f"{arm_named(name).label} {_shown(question, values[name][question.name].value)}"


def _ours_in(
    question: Question, values: Mapping[str, Mapping[str, Value]], ours: str | None
) -> str | None:
    """Return our arm, or another of ours that has an answer to this question."""
    named = [name for name in (ours, *OURS) if name in values and question.name in values[name]]
    if named:
        return named[0]
    return next((n for n in _ranked(question, values, None) if arm_named(n).is_ours), None)


def _is_told_apart(value: Value) -> bool:
    low, high = value.difference_low, value.difference_high
    return low is not None and high is not None and (low > 0 or high < 0)


def _loss(
    question: Question, values: Mapping[str, Mapping[str, Value]], ours: str | None
) -> str | None:
    """Return where ours is behind others beyond what the tiles leave open; None if nowhere."""
    mine = _ours_in(question, values, ours)
    if mine is None:
        return None
    level = values[mine][question.name]
    sign = -1.0 if question.is_higher_better else 1.0
    ahead = []
    for name in _ranked(question, values, ours):
        value = values[name][question.name]
        if arm_named(name).is_ours:
            continue
        if value.difference is not None:
            is_ahead = _is_told_apart(value) and sign * value.difference < 0
            gap = abs(value.difference)
        else:
            gap = abs(value.value - level.value)
            is_ahead = sign * (value.value - level.value) < 0
            # Without differences on the same tiles, intervals must not overlap.
            is_ahead = is_ahead and (value.high < level.low or value.low > level.high)
        if is_ahead:
            ahead.append(f"{arm_named(name).label} by {gap:.{question.digits}f}")
    if not ahead:
        return None
    what = question.title.lower()
    unit = f" {question.unit}" if question.unit else ""
    return f"On {what}, {arm_named(mine).label} is behind {_listed(ahead)}{unit}."


def _listed(items: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))
