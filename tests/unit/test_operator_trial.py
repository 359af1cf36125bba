import numpy as np
import pytest

from stainfuser.diffusion.operator_trial import MIN_STRUCTURE, TRIED_TILES, Trial
from stainfuser.stain.metrics import gradient_correlation
from stainfuser.stain.operators import ColourOperator, apply_lookup_table


def picture(seed=0, side=64):
    """Dark discs on pink tissue beside glass."""
    rng = np.random.default_rng(seed)
    rgb = np.full((side, side, 3), 243.0)
    rgb[:, side // 3 :] = (225, 150, 190)
    y, x = np.mgrid[:side, :side]
    for cy, cx in rng.uniform(0, side, (12, 2)):
        rgb[(y - cy) ** 2 + (x - cx) ** 2 < 16] = (90, 60, 140)
    return np.clip(rgb + rng.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)


def gains(*values, white=243.0, squares=0.0, trusted=1.0):
    """An operator of gains per channel, for colours within `trusted` OD of a mean and others."""
    coefficients = np.zeros((9, 3))
    coefficients[:3] = np.diag(values)
    coefficients[3:6] = squares * np.eye(3)
    parts = ([white] * 3, coefficients, values, [0.4] * 3, np.eye(3) * (3 / trusted) ** 2)
    return ColourOperator(*(np.array(part, float) for part in parts)).to_json()


def test_no_change_and_plain_gains_are_safe():
    trial = Trial([picture()])
    assert trial(gains(1.0, 1.0, 1.0))
    assert trial(gains(1.2, 0.8, 1.1))


def test_an_operator_that_levels_tissue_is_not():
    assert not Trial([picture()])(gains(1.0, 1.0, 1.0, squares=-0.9))


def test_colours_it_was_not_fitted_on_are_judged_by_what_becomes_of_them():
    levelling = gains(1.0, 1.0, 1.0, squares=-0.9, trusted=0.01)
    assert Trial([picture()])(levelling)
    levelling["gains"] = [0.1, 2.5, 0.1]
    assert not Trial([picture()])(levelling)


def test_what_is_judged_is_the_structure_of_the_pixels_that_come_out():
    image = picture()
    for squares in np.linspace(0.0, -0.9, 10):
        operator = gains(1.0, 1.0, 1.0, squares=squares)
        table = ColourOperator.from_json(operator).lookup_table()
        structure = gradient_correlation(image, apply_lookup_table(image, table))
        if abs(structure - MIN_STRUCTURE) > 0.003:  # borders of the image are another matter
            assert Trial([image])(operator) == (structure > MIN_STRUCTURE)


def test_glass_that_turns_grey_is_not_safe():
    # Glass whose white is taken to be lighter than it is.
    assert not Trial([picture()])(gains(5.0, 5.0, 5.0, white=255.0))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (500, 700)])
def test_any_size_is_tried(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    assert Trial([image])(gains(1.0, 1.0, 1.0))


def test_tiles_are_judged_together():
    flat = np.full((64, 64, 3), 200, np.uint8)
    levelling = gains(1.0, 1.0, 1.0, squares=-0.9)
    assert Trial([flat] * TRIED_TILES)(levelling)
    assert not Trial([*[flat] * (TRIED_TILES - 1), picture()])(levelling)
