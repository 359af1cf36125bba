import numpy as np
import pytest
import torch

from stainfuser.nn.operator_trial import TRIED_TILES, Trial

WHITE = torch.full((1, 3), 0.05)


def picture(seed=0, side=64):
    """Dark discs on pink tissue beside glass."""
    rng = np.random.default_rng(seed)
    rgb = np.full((side, side, 3), 243.0)
    rgb[:, side // 3 :] = (225, 150, 190)
    y, x = np.mgrid[:side, :side]
    for cy, cx in rng.uniform(0, side, (12, 2)):
        rgb[(y - cy) ** 2 + (x - cx) ** 2 < 16] = (90, 60, 140)
    return np.clip(rgb + rng.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)


def gains(*values):
    operator = torch.zeros(1, 9, 3)
    operator[0, :3] = torch.diag(torch.tensor(values))
    return operator


def test_no_change_and_plain_gains_are_accepted():
    trial = Trial([picture()])
    assert trial.accepts(gains(1.0, 1.0, 1.0), WHITE)
    assert trial.accepts(gains(1.2, 0.8, 1.1), WHITE)


def test_an_operator_that_levels_tissue_is_not():
    levelling = gains(1.0, 1.0, 1.0)
    levelling[0, 3:6] = -0.9 * torch.eye(3)
    assert not Trial([picture()]).accepts(levelling, WHITE)


def test_glass_that_turns_grey_is_not_accepted():
    # Glass whose white is taken to be lighter than it is.
    assert not Trial([picture()]).accepts(gains(5.0, 5.0, 5.0), torch.full((1, 3), -0.2))


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (2, 2), (500, 700)])
def test_any_size_is_tried(shape):
    image = np.full((*shape, 3), 200, np.uint8)
    assert Trial([image]).accepts(gains(1.0, 1.0, 1.0), WHITE)


def test_tiles_are_judged_together():
    flat = np.full((64, 64, 3), 200, np.uint8)
    levelling = gains(1.0, 1.0, 1.0)
    levelling[0, 3:6] = -0.9 * torch.eye(3)
    assert Trial([flat] * TRIED_TILES).accepts(levelling, WHITE)
    assert not Trial([*[flat] * (TRIED_TILES - 1), picture()]).accepts(levelling, WHITE)
