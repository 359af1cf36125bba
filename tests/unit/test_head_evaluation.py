import numpy as np
import pytest
from test_head_training import tissue

from stainfuser.diffusion.benchmark_arms import IDENTITY, ORACLE, REFERENCE_ORACLE
from stainfuser.diffusion.head_evaluation import (
    LABORATORIES,
    OTHER_BLOCK,
    SAME_BLOCK,
    ExactTask,
    evaluate_fan,
    evaluate_recolouring,
)
from stainfuser.stain.benchmark_tasks import FAN_PROTOCOLS, FAN_REGIONS
from stainfuser.stain.recolouring import random_recolouring
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS

SIDE = 12


def mosaic(seed):
    rng = np.random.default_rng(seed)
    colours = rng.integers(60, 200, (FAN_REGIONS, FAN_PROTOCOLS, 3))
    regions = np.repeat(np.repeat(colours, SIDE, axis=0), SIDE, axis=1)
    return (regions + rng.integers(-20, 20, regions.shape)).astype(np.uint8)


@pytest.fixture(scope="module")
def mosaics():
    return [mosaic(seed) for seed in range(3)]


def test_who_is_shown_the_same_block_can_be_exact(mosaics):
    copy = {"copy": lambda reference: lambda source: reference}
    same, other = (evaluate_fan(copy, mosaics, 7, kind) for kind in (SAME_BLOCK, OTHER_BLOCK))
    assert all(row["de"] == 0 for row in same) and all(row["de"] > 1 for row in other)
    assert {row["data"] for row in same + other} == {SAME_BLOCK, OTHER_BLOCK}


def test_a_laboratory_is_all_blocks_of_a_protocol(mosaics):
    shapes = set()

    def arm(reference):
        return lambda source: (shapes.add((len(reference), len(source))), source)[1]

    rows = evaluate_fan({IDENTITY: arm}, mosaics, 7, LABORATORIES)
    slide = FAN_REGIONS * SIDE
    assert shapes == {(2 * slide, 3 * slide)}
    # Doing nothing is as wrong, whatever it is shown, and the right block is cut out.
    alone = evaluate_fan({IDENTITY: lambda reference: lambda source: source}, mosaics, 7)
    assert [row["de"] for row in rows] == [row["de"] for row in alone]


def test_oracles_know_more_and_come_nearer():
    source, other = tissue(0, 160), tissue(1, 160)
    recolour = random_recolouring(REFERENCE_DIRECTIONS, np.random.default_rng(0), strength=0.3)
    truth = recolour(source)
    task = ExactTask("d", (), "u", source, recolour(other), truth, other)
    nothing = {IDENTITY: lambda reference: lambda source: source}
    de = {row["arm"]: row["de"] for row in evaluate_recolouring(nothing, [task], True)}
    assert de[ORACLE] < 0.3 * de[IDENTITY] and de[REFERENCE_ORACLE] < 0.5 * de[IDENTITY]
