"""Arms built on real networks: what they return, what they need, and that tiles stand alone."""

from __future__ import annotations

import numpy as np
import pytest

from slide_files import tissue_picture
from stainfuser.diffusion.arms import ArmNotAvailableError, build_arm
from stainfuser.errors import InputError
from stainfuser.evaluation_arms import ARMS
from tiny_pipeline import untrained_pipeline

TILES = np.stack([tissue_picture(64, seed=seed) for seed in (1, 2, 3)])
TARGET = tissue_picture(96, seed=9)
QUICK_STYLE = {"feature_network": "squeezenet", "allow_random_weights": True, "iterations": 2}


@pytest.fixture(scope="module")
def pipe():
    pipe = untrained_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def build(name: str, pipe=None, **more):
    options = {"model_dir": "model", "seed": 1, "load_model": lambda folder, device: pipe}
    return build_arm(name, TARGET, **{**options, **more})


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if not arm.needs])
def test_arms_without_a_model_take_each_tile_on_its_own(name):
    arm = build(name)
    together = arm(TILES)
    assert together.shape == TILES.shape and together.dtype == np.uint8
    assert np.array_equal(together[1:2], arm(TILES[1:2]))
    assert np.array_equal(together, TILES) == (name == "identity")


@pytest.mark.parametrize("name", ["vae", "render_1", "render_5", "operator", "nst", "nst_vae"])
def test_arms_of_a_model_take_each_tile_on_its_own(pipe, name):
    arm = build(name, pipe, style_options=QUICK_STYLE)
    together = arm(TILES[:2])
    assert together.shape == TILES[:2].shape and together.dtype == np.uint8
    assert np.array_equal(together[1:], arm(TILES[1:2]))


def test_no_tiles_give_no_tiles(pipe):
    for name in ("macenko", "render_1"):
        assert build(name, pipe)(TILES[:0]).shape == TILES[:0].shape


def test_more_steps_are_another_arm_and_the_operator_is_no_rendering(pipe):
    results = {name: build(name, pipe)(TILES[:1]) for name in ("render_1", "operator")}
    assert not np.array_equal(results["render_1"], results["operator"])
    from_noise = untrained_pipeline(objective="v_zero_snr")
    by_steps = [build(name, from_noise)(TILES[:1]) for name in ("render_1", "render_5")]
    assert not np.array_equal(*by_steps)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nst", "pairs.feature_weights"),
        ("trained", "no model was trained"),
        ("cyclegan_like", "no such network"),
    ],
)
def test_what_is_lacking_is_said(pipe, name, says):
    with pytest.raises(ArmNotAvailableError, match=says):
        build(name, pipe)


def test_a_model_without_a_diffusion_part_cannot_render(pipe):
    class HeadAlone:
        can_render, operator_head = False, "a head"

    for name in ("render_1", "vae"):
        with pytest.raises(ArmNotAvailableError, match="no diffusion part"):
            build(name, HeadAlone())
    with pytest.raises(ArmNotAvailableError, match="no model was given"):
        build("render_1", pipe, model_dir=None)


@pytest.mark.parametrize("name", ["delivered", "truth", "unheard_of"])
def test_arms_that_are_not_built_from_tiles_are_refused(name):
    with pytest.raises(InputError, match="cannot be built from tiles; use one of identity"):
        build(name)


def test_a_model_is_loaded_once_for_all_targets(pipe):
    loaded = []

    def load(folder, device):
        loaded.append(folder)
        return pipe

    for name in ("render_1", "vae"):
        build(name, load_model=load)
    assert len(loaded) == 1
