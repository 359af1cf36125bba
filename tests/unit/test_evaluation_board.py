"""The first screen: winners, losses said in words, missing arms, and the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from stainfuser.board_picture import draw_board
from stainfuser.evaluation_arms import ARMS, QUICK, chosen_arms, reference_arm
from stainfuser.evaluation_board import make_board

TRUTH, STRUCTURE = "ciede2000_truth", "gradient_correlation_source"


def row(
    method: str, metric: str, value: float | str, around: float = 0.1, n: int = 20, target="demo"
) -> dict[str, str]:
    low, high = ("", "") if value == "" else (value - around, value + around)
    numbers = {"value": value, "ci_low": low, "ci_high": high, "n": n}
    return {
        "method": method,
        "target": target,
        "metric": metric,
        **{k: str(v) for k, v in numbers.items()},
    }


def record(
    arm: str, rate: float | None = 1.0, state: str = "done", failure: str | None = None
) -> dict:
    return {
        "arm": arm,
        "state": state,
        "failure": failure,
        "seconds_per_megapixel": rate,
        "tiles": 20,
    }


def board_of(values: dict[str, float], differences: dict[str, float], around: float = 0.1, **more):
    """Return a board of one question: arm → difference to the truth, and to delivered."""
    rows = [row(arm, TRUTH, value) for arm, value in values.items()]
    rows += [row(a, f"{TRUTH}_minus_delivered", d, around) for a, d in differences.items()]
    return make_board(rows, [record(arm, None) for arm in values], **more)


def test_the_best_arm_is_named_and_ours_is_set_beside_it():
    board = board_of(
        {"identity": 12.0, "macenko": 4.0, "delivered": 5.0}, {"identity": 7, "macenko": -1.0}
    )
    assert board.wins == [
        "Nearest to the truth: Macenko (4.00 ΔE, 3.90 to 4.10); StainFuser, as delivered 5.00 ΔE."
    ]
    assert board.losses == ["On truth, StainFuser, as delivered is behind Macenko by 1.00 ΔE."]
    best = {r.arm.name for r in board.rows if "truth" in r.best}
    assert best == {"macenko"} and board.ours.name == "delivered"


def test_what_the_tiles_do_not_tell_apart_is_no_loss():
    board = board_of({"macenko": 4.9, "delivered": 5.0}, {"macenko": -0.1}, around=0.3)
    assert "do not tell apart" in board.wins[0] and board.losses == []


def test_ours_in_front_is_named_with_the_next():
    board = board_of({"macenko": 6.0, "delivered": 5.0}, {"macenko": 1.0})
    assert board.wins[0].startswith("Nearest to the truth: StainFuser, as delivered (5.00")
    assert board.wins[0].endswith("; next is Macenko 6.00 ΔE.") and board.losses == []


def test_an_arm_with_fewer_tiles_is_judged_on_the_tiles_of_both():
    # On its own easy tiles it has the lowest mean; on the same tiles delivered is better.
    board = board_of({"nst": 2.0, "delivered": 5.0}, {"nst": 0.5})
    assert [r.arm.name for r in board.rows if r.best] == ["delivered"]


@pytest.mark.parametrize("reference", ["identity", "vae", "truth"])
def test_references_do_not_compete(reference):
    board = board_of({reference: 0.0, "delivered": 5.0, "macenko": 6.0}, {reference: -5.0})
    assert [r.arm.name for r in board.rows if r.best] == ["delivered"] and board.losses == []


def test_higher_is_better_where_it_is():
    rows = [row("macenko", STRUCTURE, 0.9, 0.01), row("delivered", STRUCTURE, 0.99, 0.001)]
    rows.append(row("macenko", f"{STRUCTURE}_minus_delivered", -0.09, 0.01))
    board = make_board(rows, [record("macenko", 1.0), record("delivered", None)])
    best = {r.arm.name: r.best for r in board.rows}
    assert best == {"macenko": {"speed"}, "delivered": {"structure"}}
    assert board.losses == []


def test_speed_and_downstream_come_from_their_own_tables():
    rows = [row("macenko", TRUTH, 6.0), row("operator", TRUTH, 5.0)]
    downstream = [
        {**row("macenko", "mpq_plus_mean", 0.4, 0.01), "dataset": "phantoms"},
        {**row("operator", "mpq_plus_mean", 0.3, 0.01), "dataset": "phantoms"},
        {**row("operator", "mpq_plus_worst", 0.1), "dataset": "phantoms"},
    ]
    board = make_board(rows, [record("macenko", 2.0), record("operator", 0.5)], downstream)
    assert [q.name for q in board.questions] == ["truth", "downstream", "speed"]
    assert board.losses == ["On downstream, StainFuser operator is behind Macenko by 0.100 mPQ+."]
    assert "Fastest: StainFuser operator (0.50 s per MPix); next is Macenko" in board.wins[-1]


def test_arms_that_were_not_run_or_failed_are_named_with_the_reason():
    rows = [row("macenko", TRUTH, 6.0), row("vahadane", TRUTH, "", n=0)]
    records = [
        record("macenko"),
        record("nst", None, "not run", "arm nst: no weights; set pairs.feature_weights."),
        record("vahadane", None, "failed", "out of memory"),
    ]
    board = make_board(rows, records)
    assert [(arm.name, state) for arm, state, _ in board.missing] == [
        ("nst", "not run"),
        ("vahadane", "failed"),
    ]
    assert [r.arm.name for r in board.rows] == ["macenko"]


def test_several_targets_are_judged_pooled():
    rows = [
        row("macenko", TRUTH, value, target=t) for t, value in (("a", 1), ("b", 3), ("(all)", 2))
    ]
    [only] = make_board(rows, []).rows
    assert only.values["truth"].value == 2


def test_nothing_measured_gives_an_empty_board_and_no_picture():
    board = make_board([], [])
    assert (board.rows, board.wins, board.losses, board.ours) == ([], [], [], None)
    assert draw_board(board) == ""


def test_the_picture_is_valid_and_keeps_every_arm_within_its_panel():
    values = {"identity": 12.0, "macenko": 6.0, "reinhard": 6.5, "delivered": 5.0, "nst": 90.0}
    svg = draw_board(board_of(values, {}))
    tree = ElementTree.fromstring(svg)
    texts = "".join(tree.itertext())
    assert all(ARMS[name].label in texts for name in values)
    width = float(tree.attrib["viewBox"].split()[2])
    places = [float(e.attrib["cx"]) for e in tree.iter("circle")]
    assert min(places) > 0 and max(places) < width
    # One arm far behind is an arrow at the rim and does not press the others together.
    assert len(list(tree.iter("polygon"))) >= 1
    dots = {e.find("title").text: float(e.attrib["cx"]) for e in tree.iter("circle") if len(e)}
    assert dots["StainFuser, as delivered: 5.00"] - dots["Macenko: 6.00"] > 15
    assert len([e for e in tree.iter("circle") if e.get("class") == "ring"]) == 1


def test_the_lists_of_arms():
    assert set(QUICK) <= set(ARMS) and chosen_arms("all", True) == list(ARMS)
    assert chosen_arms(["macenko", "identity"], False) == ["identity", "macenko"]
    assert chosen_arms(["macenko"], True) == ["macenko", "truth"]
    assert "truth" not in chosen_arms("all", False)
    assert (
        reference_arm(["operator", "macenko"]) == "operator" and reference_arm(["macenko"]) is None
    )
    colours = [arm.colour for arm in ARMS.values()]
    assert len(set(colours)) == len(colours)
