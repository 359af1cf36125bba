"""The first screen's picture: every arm on every question, as SVG inside the page.

One panel per question, one row per arm, further right is better. A bar is the interval; the winner
has a ring and its number. Values far behind the others are drawn as an arrow at the left rim, so
that one bad arm does not press the others together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from stainfuser.evaluation_board import Board, BoardRow, Question, Value

LABEL_PX, PANEL_PX, GAP_PX, ROW_PX, HEAD_PX, FOOT_PX = 208, 146, 16, 20, 46, 10
# Space within a panel for rings and for the winner's number, px.
INSET_PX, NUMBER_PX = 8, 6
# The left rim lies this many times as far from the best as so many per cent of the arms, or just
# beyond the worst of ours.
REACH, REACHED_SHARE = 1.25, 0.75


def draw_board(board: Board) -> str:
    """Return the picture as an ``<svg>`` element; an empty string without rows."""
    if not board.rows or not board.questions:
        return ""
    width = LABEL_PX + len(board.questions) * (PANEL_PX + GAP_PX)
    height = HEAD_PX + len(board.rows) * ROW_PX + FOOT_PX
    parts = [
        f'<svg class="board" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(_description(board))}">'
    ]
    parts += [_row_band(index, row, width) for index, row in enumerate(board.rows)]
    for index, question in enumerate(board.questions):
        left = LABEL_PX + index * (PANEL_PX + GAP_PX)
        parts += _panel(question, board.rows, left, height)
    return "\n".join([*parts, "</svg>"])


def _description(board: Board) -> str:
    names = ", ".join(question.title.lower() for question in board.questions)
    return f"{len(board.rows)} arms compared on {names}; the same numbers are in the table below"


def _y(index: int) -> float:
    return HEAD_PX + (index + 0.5) * ROW_PX


def _row_band(index: int, row: BoardRow, width: float) -> str:
    """Return an arm's name, on a band if it is ours."""
    top = HEAD_PX + index * ROW_PX
    band = (
        f'<rect class="band" x="0" y="{top}" width="{width}" height="{ROW_PX}"/>'
        if row.arm.is_ours
        else ""
    )
    weight = ' class="ours"' if row.arm.is_ours else ""
    return (
        f'{band}<circle cx="6" cy="{_y(index):.1f}" r="4" fill="{row.arm.colour}"/>'
        f'<text{weight} x="16" y="{_y(index) + 4:.1f}">{escape(row.arm.label)}</text>'
    )


class Scale:
    """Places of one question's values within a panel: the better the further right.

    Parameters
    ----------
    question, values, ours
        The question, the values of competing arms, and those of ours among them.
    left
        Left rim of the panel, px.
    """

    def __init__(
        self, question: Question, values: Sequence[float], ours: Sequence[float], left: float
    ) -> None:
        self._sign = 1.0 if question.is_higher_better else -1.0
        self._is_log = question.name == "speed"
        self.left, self.right = left + INSET_PX, left + PANEL_PX - INSET_PX
        goodness = sorted((self._goodness(value) for value in values), reverse=True)
        best, worst = goodness[0], goodness[-1]
        if not self._is_log:
            usual = goodness[int(REACHED_SHARE * (len(goodness) - 1))]
            near = min([best - REACH * (best - usual), *(self._goodness(v) for v in ours)])
            worst = max(worst, near)
        self.best, self.worst = best, worst if worst < best else best - 1.0

    def _goodness(self, value: float) -> float:
        return self._sign * (math.log10(max(value, 1e-6)) if self._is_log else value)

    def __call__(self, value: float) -> float:
        """Return the place of a value, px, kept within the panel."""
        share = (self._goodness(value) - self.worst) / (self.best - self.worst)
        return self.left + min(1.0, max(0.0, share)) * (self.right - self.left)

    def is_off(self, value: float) -> bool:
        """Tell whether a value lies left of the panel."""
        return self._goodness(value) < self.worst - 1e-9

    @property
    def ends(self) -> tuple[float, float]:
        """Values at the left and the right rim."""
        ends = (self._sign * self.worst, self._sign * self.best)
        return tuple(10**end if self._is_log else end for end in ends)  # type: ignore[return-value]


def _panel(question: Question, rows: Sequence[BoardRow], left: float, height: float) -> list[str]:
    values = [row.values[question.name] for row in rows if question.name in row.values]
    competing = [
        row.values[question.name].value
        for row in rows
        if question.name in row.values and row.arm.competes
    ]
    ours = [
        row.values[question.name].value
        for row in rows
        if question.name in row.values and row.arm.is_ours
    ]
    scale = Scale(question, competing or [value.value for value in values], ours, left)
    unit = f", {question.unit}" if question.unit else ""
    worse, better = (f"{end:.{question.digits}f}" for end in scale.ends)
    parts = [
        f'<text class="head" x="{left}" y="15">{escape(question.title + unit)}</text>',
        f'<text class="end" x="{left}" y="34">{worse}</text>',
        f'<text class="end" x="{left + PANEL_PX}" y="34" text-anchor="end">{better} \u2192</text>',
        f'<line class="rim" x1="{left}" x2="{left + PANEL_PX}" y1="{HEAD_PX - 4}" '
        f'y2="{HEAD_PX - 4}"/>',
    ]
    for index, row in enumerate(rows):
        if question.name in row.values:
            is_best = question.name in row.best
            parts.append(_dot(question, row, row.values[question.name], scale, index, is_best))
        else:
            parts.append(
                f'<text class="end" x="{left + PANEL_PX / 2}" y="{_y(index) + 4:.1f}">\u2013</text>'
            )
    return parts


def _dot(
    question: Question, row: BoardRow, value: Value, scale: Scale, index: int, is_best: bool
) -> str:
    y, x, colour = _y(index), scale(value.value), row.arm.colour
    title = f"<title>{escape(row.arm.label)}: {value.value:.{question.digits}f}</title>"
    if scale.is_off(value.value):
        tip = f"{x - 5:.1f},{y:.1f} {x + 4:.1f},{y - 5:.1f} {x + 4:.1f},{y + 5:.1f}"
        return f'<polygon points="{tip}" fill="{colour}">{title}</polygon>'
    low, high = scale(value.low), scale(value.high)
    shape = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" fill="{colour}">{title}</circle>'
    if not row.arm.competes:
        shape = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.4" fill="none" stroke="{colour}" '
            f'stroke-width="1.6">{title}</circle>'
        )
    bar = (
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" '
        f'stroke-width="2.4" opacity="0.5"/>'
    )
    if not is_best:
        return bar + shape
    text_x = min(low, high) - NUMBER_PX - 4
    return (
        f'{bar}{shape}<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="7.2"/>'
        f'<text class="won" x="{text_x:.1f}" y="{y + 4:.1f}" text-anchor="end">'
        f"{value.value:.{question.digits}f}</text>"
    )
