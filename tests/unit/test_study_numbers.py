"""Numbers of studies: paired differences, words for them, and files."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from stainfuser.diffusion.study_numbers import (
    Estimate,
    Measured,
    StudyNumbers,
    compared,
    draw_estimates,
    markdown_table,
    write_answer,
)


@pytest.fixture(scope="module")
def numbers():
    rows = []
    for unit in range(8):
        base = 5.0 * unit
        rows.append(Measured("a", "data", str(unit), str(unit // 2), "de", base))
        rows.append(Measured("b", "data", str(unit), str(unit // 2), "de", base + 1 + unit % 2))
    rows.append(Measured("b", "data", "alone", "9", "de", 1000.0))
    return StudyNumbers(rows, seed=1, samples=200, confidence=0.95)


def test_a_difference_is_taken_over_what_both_have(numbers):
    difference = numbers.difference("b", "a", "data", "de")
    assert difference.value == pytest.approx(1.5) and difference.n == 8
    assert 1.0 <= difference.low <= 1.5 <= difference.high <= 2.0
    mean = numbers.mean("a", "data", "de")
    assert mean.value == pytest.approx(17.5)
    assert mean.high - mean.low > 5 * (difference.high - difference.low)


def test_what_was_not_measured_is_said(numbers):
    assert numbers.mean("c", "data", "de").n == 0
    assert numbers.mean("c", "data", "de").text(2) == "not measured"
    assert compared(numbers.difference("c", "a", "data", "de"), 2) == "not measured"


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(0.5, 0.2, 0.8, 3), "higher by 0.50 (+0.20 to +0.80)"),
        (Estimate(-0.5, -0.8, -0.2, 3), "lower by 0.50 (-0.80 to -0.20)"),
        (Estimate(0.1, -0.2, 0.4, 3), "not told apart: +0.10 (-0.20 to +0.40)"),
    ],
)
def test_words_follow_the_interval(estimate, words):
    assert compared(estimate, 2) == words


def test_files(numbers, tmp_path):
    numbers.write(tmp_path / "numbers.csv")
    rows = list(csv.DictReader((tmp_path / "numbers.csv").open()))
    assert [(row["arm"], row["n"]) for row in rows] == [("a", "8"), ("b", "9")]
    draw_estimates(tmp_path / "figure.png", numbers, [("de", "Colour error")])
    assert np.asarray(Image.open(tmp_path / "figure.png")).std() > 5
    write_answer(tmp_path / "answer.md", "Title", [("Head", markdown_table(["x"], [["1"]]))])
    assert (tmp_path / "answer.md").read_text() == "# Title\n\n## Head\n\n| x |\n|---|\n| 1 |\n"
