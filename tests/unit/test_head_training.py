import numpy as np
import pytest
import torch

from stainfuser.diffusion import head_training
from stainfuser.diffusion.head_data import (
    COLOUR_STEP,
    draw_batch,
    look_like_he,
    moved_directions,
    stack,
    starting_classes,
    unchanged,
)
from stainfuser.diffusion.head_training import (
    HeadTrainingOptions,
    head_losses,
    mean_losses,
    structure,
    train_head,
)
from stainfuser.diffusion.training_images import prepare_image
from stainfuser.errors import TrainingError
from stainfuser.nn.class_matcher import OperatorHeadParams
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.stain.not_he import draw_not_he
from stainfuser.stain.optical_density import od_to_rgb
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS
from stainfuser.stain.weak_labels import BACKGROUND, NUCLEI, OTHER, weak_labels

PARAMS = OperatorHeadParams(6, (8, 8, 16), 8, 16, 1, 2, 64)
OPTIONS = HeadTrainingOptions(4, 4, 32, 1e-3, 1e-4)


def tissue(seed, side=96):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    amounts = np.zeros((side, side, 2))
    amounts[..., 1] = 0.35 + 0.1 * np.sin(x / 5) * np.cos(y / 7)
    for _ in range(30):
        cy, cx = rng.uniform(0, side, 2)
        amounts[..., 0] += 0.9 * (np.hypot(y - cy, x - cx) < 3.5)
    amounts[y > 0.8 * side] = 0
    od = amounts @ np.array([[0.8, 0.75, 0.4], [0.1, 0.7, 0.35]]) + 0.03
    return od_to_rgb(od + rng.normal(0, 0.01, od.shape))


@pytest.fixture(scope="module")
def images():
    return [prepare_image(f"{seed}.png", tissue(seed), 32) for seed in range(2)]


def new_head():
    torch.manual_seed(0)
    return OperatorHead(PARAMS)


def test_weak_labels_find_glass_and_nuclei():
    rgb = tissue(0)
    labels = weak_labels(rgb)
    assert (labels[85:] == BACKGROUND).mean() > 0.95
    dark = rgb[:70, :, 0] < 130
    assert (labels[:70][dark] == NUCLEI).mean() > 0.8
    assert (labels[:70][~dark] == OTHER).mean() > 0.8


def test_image_smaller_than_a_tile_is_refused():
    with pytest.raises(ValueError, match="less than a tile"):
        prepare_image("a.png", tissue(0, 20), 32)


def test_batches_depend_on_seed_and_step_alone(images):
    first, again = (draw_batch(images, 8, 32, 1, 5) for _ in range(2))
    other = draw_batch(images, 8, 32, 1, 6)
    assert torch.equal(first.source, again.source) and torch.equal(first.truth, again.truth)
    assert first.source.shape != other.source.shape or not torch.equal(first.source, other.source)


def test_truth_is_the_source_recoloured_pixel_by_pixel(images):
    for step in range(6):
        batch = draw_batch(images, 8, 32, 1, step)
        sampled = batch.source[:, :, ::COLOUR_STEP, ::COLOUR_STEP]
        assert batch.truth.shape == sampled.shape
        usable = batch.is_he.prod(1) > 0
        for source, truth in zip(sampled[usable], batch.truth[usable], strict=True):
            colours, place = np.unique(source.reshape(-1, 3).numpy(), axis=0, return_inverse=True)
            answers = truth.reshape(-1, 3).numpy()
            spread = [
                np.ptp(answers[place.ravel() == k], axis=0).max() for k in range(len(colours))
            ]
            assert max(spread) == 0


def test_unchanged_recolouring_changes_nothing():
    rgb = torch.from_numpy(tissue(0)).float()[None]
    assert torch.equal(stack([unchanged()])(rgb), rgb)
    np.testing.assert_allclose(
        moved_directions(REFERENCE_DIRECTIONS, unchanged()), REFERENCE_DIRECTIONS, atol=1e-2
    )


def test_examples_that_could_not_be_he_are_found(images):
    from dataclasses import replace

    from stainfuser.diffusion.head_data import draw_example

    rng = np.random.default_rng(0)
    good = replace(draw_example(images, 1, 1, 32, rng), first=unchanged(), second=unchanged())
    green = replace(good, second=replace(unchanged(), swap=np.eye(3)[[1, 0, 2]] * [1, 0.2, 1]))
    tinted = unchanged()
    tinted.curve[0] = (0.0, 0.3, 0.0)
    assert look_like_he([good, green, replace(good, first=tinted)]) == [True, False, False]


def test_every_kind_that_is_not_he_is_made():
    tiles, rng = tissue(0)[None], np.random.default_rng(0)
    kinds = set()
    for _ in range(120):
        made, kind = draw_not_he(tiles, REFERENCE_DIRECTIONS, rng)
        assert made.shape == tiles.shape and made.dtype == np.uint8
        assert not np.array_equal(made, tiles)
        kinds.add(kind)
    assert kinds == {"blank", "grey", "pen", "dab", "odd_stain", "inverted", "fields"}


def test_structure_is_one_for_the_same_and_falls_when_inverted():
    tiles = torch.from_numpy(np.stack([tissue(0), tissue(1)])).float()[:, None]
    torch.testing.assert_close(structure(tiles, tiles), torch.ones(2))
    assert (structure(255 - tiles, tiles) < -0.9).all()


def test_losses_are_finite_and_reach_every_parameter(images):
    head = new_head()
    # The zero-initialised last layers hide what is before them at the very first step.
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    losses = head_losses(head, draw_batch(images, 12, 32, 1, 0))
    assert all(torch.isfinite(value) for value in losses.values())
    losses["total"].backward()
    missing = [
        n for n, p in head.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert missing == []


def test_training_learns(images, tmp_path, monkeypatch):
    monkeypatch.setattr(head_training, "WARM_UP_STEPS", 5)
    head = new_head()
    batches = [draw_batch(images, 12, 32, 2, step) for step in range(3)]
    before = mean_losses(head, batches)
    options = HeadTrainingOptions(40, 12, 32, 3e-3, 1e-4)
    average, losses = train_head(head, images, options, seed=1, work_dir=tmp_path)
    assert len(losses) == 40
    after = mean_losses(average, batches)
    assert after["groups"] < 0.9 * before["groups"] and after["total"] < before["total"]


def test_interrupted_training_continues_to_the_same_weights(images, tmp_path, monkeypatch):
    whole, losses = train_head(new_head(), images, OPTIONS, seed=1, work_dir=tmp_path / "whole")

    class KilledError(Exception):
        pass

    def stop(step):
        def drawn(images, tiles, tile_px, seed, at):
            if at == step:
                raise KilledError
            return draw_batch(images, tiles, tile_px, seed, at)

        return drawn

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(head_training, "draw_batch", stop(3))
        train_head(new_head(), images, OPTIONS, seed=1, work_dir=tmp_path / "part", save_every=2)
    resumed, rest = train_head(new_head(), images, OPTIONS, seed=1, work_dir=tmp_path / "part")
    assert rest == losses
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_checkpoint_of_other_options_is_refused(images, tmp_path):
    train_head(new_head(), images, OPTIONS, seed=1, work_dir=tmp_path)
    with pytest.raises(TrainingError, match="other options"):
        train_head(new_head(), images, OPTIONS, seed=2, work_dir=tmp_path)


def test_a_loss_that_is_not_finite_stops_training(images, tmp_path):
    head = new_head()
    with torch.no_grad():
        head.stem[0].weight[0] = float("nan")
    with pytest.raises(TrainingError, match="not finite"):
        train_head(head, images, OPTIONS, seed=1, work_dir=tmp_path)


def test_classes_start_as_clusters_of_relative_colours(images):
    centres, variance = starting_classes(images, 6, 32, 1)
    again, _ = starting_classes(images, 6, 32, 1)
    assert torch.equal(centres, again) and centres.shape == (6, 6) and 0 < variance < 1
    head = new_head()
    head.start_classes(centres, variance)
    colours = centres.T[None, :, None]
    nearest = head.assign_colour(colours).argmax(1).flatten()
    assert nearest.tolist() == list(range(6))
