"""mPQ+ over targets with intervals, and the figure and sheet it is shown in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from stainfuser.downstream_figure import draw_downstream
from stainfuser.nucleus_pictures import COLOURS, outlined
from stainfuser.stain.downstream_scores import Score, score_arm, undefined_scores

CLASSES, SHIFTS = ("a", "b"), ("pale", "dark")


def counts(quality: list[list[float]], tiles: int = 3) -> np.ndarray:
    """Return (U, T, H, C, 4): ten nuclei per tile and class, found with IoU 1 in such parts.

    `quality` is a part per target and shift; what is missed is a false negative.
    """
    parts = np.array(quality)[None, :, :, None].repeat(tiles, 0).repeat(2, 3)
    found = np.zeros((*parts.shape, 4))
    found[..., 0] = found[..., 3] = 10 * parts
    found[..., 2] = 10 * (1 - parts)
    return found


def scored(found: np.ndarray, untouched: np.ndarray | None = None) -> dict[str, Score]:
    groups = np.arange(len(found))
    rng = np.random.default_rng(0)
    beside = {} if untouched is None else {"mpq_plus_gain": untouched}
    return score_arm(found, beside, groups, CLASSES, SHIFTS, rng, 200, 0.95)


def pq(part: float) -> float:
    """Return PQ where this part is found and the rest is missed."""
    return part / (part + (1 - part) / 2)


def test_scores_of_three_targets_by_hand():
    found = scored(counts([[1.0, 1.0], [0.5, 0.5], [0.2, 0.2]]))
    values = [1.0, pq(0.5), pq(0.2)]
    assert found["mpq_plus_mean"].value == pytest.approx(np.mean(values))
    area = (values[0] + values[1]) / 4 + (values[1] + values[2]) / 4
    assert found["mpq_plus_auc"].value == pytest.approx(area)
    assert found["mpq_plus_worst"].value == pytest.approx(values[2])
    assert found["pq_a"].value == pytest.approx(np.mean(values))
    assert "mpq_plus_gain" not in found
    # All tiles are alike: resampling them changes nothing.
    assert found["mpq_plus_mean"].low == pytest.approx(found["mpq_plus_mean"].high)


def test_shifts_are_pooled_before_quality_is_computed():
    found = scored(counts([[1.0, 0.0]]))
    assert found["mpq_plus_mean"].value == pytest.approx(pq(0.5))
    assert found["mpq_plus_pale"].value == 1.0 and found["mpq_plus_dark"].value == 0.0


def test_unshifted_tiles_have_a_score_of_their_own_and_enter_no_other():
    found = counts([[0.5, 1.0]])
    rng = np.random.default_rng(0)
    score = score_arm(found, {}, np.arange(3), CLASSES, ("pale", "unshifted"), rng, 50, 0.95)
    assert score["mpq_plus_mean"].value == pytest.approx(pq(0.5))
    assert score["mpq_plus_unshifted"].value == 1.0


def test_the_gain_is_paired():
    """Tiles differ by much more than arms do, and the interval of the gain does not see it."""
    random = np.random.default_rng(0)
    part = random.uniform(0.1, 0.8, (20, 1, 1, 1))
    arms = []
    for change in (0.0, 0.05):
        found = np.zeros((20, 1, 2, 2, 4))
        found[..., 0] = found[..., 3] = 10 * (part + change)
        found[..., 2] = 10 * (1 - part - change)
        arms.append(found)
    score = scored(arms[1], arms[0])
    width = score["mpq_plus_mean"].high - score["mpq_plus_mean"].low
    gain = score["mpq_plus_gain"]
    assert gain.low > 0
    assert gain.high - gain.low < 0.2 * width
    assert scored(arms[0], arms[0])["mpq_plus_gain"] == Score(0.0, 0.0, 0.0)


def test_one_piece_of_tissue_has_no_interval():
    score = scored(counts([[0.5, 0.5]], tiles=1))["mpq_plus_mean"]
    assert score.value == pytest.approx(pq(0.5)) and np.isnan(score.low) and np.isnan(score.high)


def test_a_class_that_is_nowhere_does_not_count():
    found = counts([[0.5, 0.5]])
    found[..., 1, :] = 0
    score = scored(found)
    assert score["mpq_plus_mean"].value == pytest.approx(pq(0.5))
    assert np.isnan(score["pq_b"].value) and np.isnan(score["pq_b"].low)


def test_no_nuclei_at_all_is_undefined_and_not_an_error():
    assert np.isnan(scored(np.zeros((2, 1, 2, 2, 4)))["mpq_plus_mean"].value)
    assert all(np.isnan(score.value) for score in undefined_scores().values())


def test_outlines_lie_within_their_nuclei():
    rgb = np.full((6, 8, 3), 200, np.uint8)
    labels = np.zeros((6, 8, 2), np.int32)
    labels[1:4, 1:4], labels[1:4, 4:7] = (1, 1), (2, 2)
    picture = outlined(rgb, labels)
    assert picture.shape == (12, 16, 3)
    assert picture[2, 2].tolist() == list(COLOURS[0]) and picture[2, 8].tolist() == list(COLOURS[1])
    assert (
        picture[4, 4].tolist() == [200] * 3
        and (picture[labels.repeat(2, 0).repeat(2, 1)[..., 0] == 0] == 200).all()
    )
    assert np.array_equal(outlined(rgb, np.zeros_like(labels)), rgb.repeat(2, 0).repeat(2, 1))


def test_the_figure_names_arms_that_did_not_run(tmp_path):
    rows = [
        (arm, "phantoms", metric, value, value, value, n)
        for arm, value, n in (("identity", 0.2, 6), ("operator", 0.5, 6), ("nst", np.nan, 0))
        for metric in ("mpq_plus_mean", "mpq_plus_worst", "mpq_plus_gain")
    ]
    columns = ["method", "dataset", "metric", "value", "ci_low", "ci_high", "n"]
    labels = {"identity": "Untouched", "operator": "Operator", "nst": "NST"}
    for number in range(2):
        draw_downstream(
            tmp_path / f"{number}.png", pd.DataFrame(rows, columns=columns), labels, 0.95
        )
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
