from dataclasses import replace

import numpy as np
import pytest
import torch
from test_head_training import PARAMS, new_head, tissue

from stainfuser.diffusion import matcher_training
from stainfuser.diffusion.head_state import TrainingState
from stainfuser.diffusion.matcher_data import (
    draw_phantoms,
    draw_recolourings,
    sample_images,
    sample_phantoms,
)
from stainfuser.diffusion.matcher_training import (
    LOSSES,
    MatcherTrainingOptions,
    matcher_losses,
    train_matcher,
)
from stainfuser.diffusion.tile_samples import (
    HERE,
    draw_places,
    sample_tile,
    sampled_od,
    sampled_statistics,
)
from stainfuser.diffusion.training_images import prepare_image
from stainfuser.errors import InputError, TrainingError
from stainfuser.nn.colour_moments import TISSUE_MOMENTS
from stainfuser.nn.od_torch import od_to_rgb

TILE_PX, PIXELS = 48, 128
OPTIONS = MatcherTrainingOptions(4, 3, 0.5, 1e-3, 1e-4)


@pytest.fixture(scope="module")
def head():
    return new_head()


@pytest.fixture(scope="module")
def banks(head):
    images = [prepare_image(f"{seed}.png", tissue(seed, 160), TILE_PX) for seed in range(2)]
    tiles = sample_images(head, images, 30, PIXELS, TILE_PX, 1)
    return tiles, sample_phantoms(head, 3, PIXELS, TILE_PX, 1, 1)


def all_places(side):
    """Every half-size pixel that has a neighbour to the right and below."""
    grid = torch.arange((side // 2) ** 2).reshape(side // 2, side // 2)
    return grid[:-1, :-1].flatten()


def test_all_pixels_of_a_tile_give_the_statistics_of_the_tile(head):
    side = 96
    tile = torch.from_numpy(tissue(3, side)).float()
    labels = torch.zeros(side, side, dtype=torch.uint8)
    samples = sample_tile(head, tile, tile[None], labels, all_places(side))
    exact, _ = head.statistics(tile.permute(2, 0, 1)[None, None])
    found = sampled_statistics(
        samples.od[:, None, HERE].float(),
        samples.logits.float(),
        samples.group_logits.float(),
        samples.context,
    )
    # Rounded to half precision, and without the last row and column.
    torch.testing.assert_close(found.fractions, exact.fractions, atol=5e-3, rtol=0.03)
    torch.testing.assert_close(found.means(), exact.means(), atol=5e-3, rtol=0.03)
    torch.testing.assert_close(found.covariances(), exact.covariances(), atol=2e-3, rtol=0.1)
    features = slice(None, -TISSUE_MOMENTS)
    torch.testing.assert_close(found.context[:, features], exact.context[:, features])


def test_places_have_neighbours_and_differ():
    places = draw_places(TILE_PX, 500, 3)
    side = TILE_PX // 2
    assert len(set(places.tolist())) == 500
    assert (places % side).max() < side - 1 and (places // side).max() < side - 1


def test_neighbours_are_one_pixel_off():
    steps = torch.arange(32.0) * 5
    tile = torch.zeros(32, 32, 3)
    tile[..., 0], tile[..., 1] = steps[:, None], steps[None, :]
    here, right, below = od_to_rgb(sampled_od(tile, torch.tensor([2 * 16 + 2])))
    assert (right[0, 1] > here[0, 1]) and torch.allclose(right[0, 0], here[0, 0], atol=1e-3)
    assert (below[0, 0] > here[0, 0]) and torch.allclose(below[0, 1], here[0, 1], atol=1e-3)


def test_batches_depend_on_seed_and_step_alone(banks):
    for draw, bank in zip((draw_recolourings, draw_phantoms), banks, strict=True):
        first, again, other = (draw(bank, 3, 1, step) for step in (5, 5, 6))
        assert torch.equal(first.truth, again.truth)
        assert torch.equal(first.source.classes, again.source.classes)
        assert not torch.equal(first.source.classes[..., :1], other.source.classes[..., :1])


def test_source_and_truth_show_the_same_tissue(banks):
    batch = draw_recolourings(banks[0], 4, 1, 0)
    assert batch.truth.shape == batch.source_od[:, :, HERE].shape
    for source, truth in zip(batch.source_od[:, :, HERE], batch.truth, strict=True):
        # A recolouring keeps the order of light and dark; other tissue would not.
        dark = [side.sum(-1).flatten().numpy() for side in (source, truth)]
        assert np.corrcoef(*[np.argsort(np.argsort(x)) for x in dark])[0, 1] > 0.7


def test_only_tiles_of_one_image_are_source_and_target(banks):
    bank = banks[0]
    assert sorted(np.concatenate(bank.groups)) == list(range(len(bank.samples)))
    for members, unlikeness in zip(bank.groups, bank.unlikeness, strict=True):
        assert unlikeness.shape == (len(members),) * 2
        assert np.isnan(np.diag(unlikeness)).all()
        assert np.isfinite(unlikeness).any(axis=1).all()


def test_images_that_hold_one_tile_alone_are_no_use(head):
    images = [prepare_image("small.png", tissue(0, TILE_PX + 4), TILE_PX)]
    with pytest.raises(InputError, match="side by side"):
        sample_images(head, images, 30, PIXELS, TILE_PX, 1)


def test_a_perfect_answer_has_no_loss(head, banks):
    batch = draw_phantoms(banks[1], 3, 1, 0)
    losses = matcher_losses(head, batch)
    assert tuple(losses) == LOSSES and all(torch.isfinite(v) for v in losses.values())
    own = batch.source_od[:, :, HERE]
    # Equal statistics ask for no change, which is right where truth and source are the same.
    same = replace(
        batch,
        target=batch.source,
        target_od=batch.source_od,
        truth=own,
        other=own,
        target_labels=batch.source_labels,
    )
    assert matcher_losses(head, same)["error"] < 0.3 * losses["error"]


def test_only_the_matcher_learns(banks, tmp_path):
    head = new_head()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    average, losses = train_matcher(head, *banks, OPTIONS, seed=1, work_dir=tmp_path)
    assert len(losses) == OPTIONS.steps
    own = before | {f"matcher_{n}": v for n, v in before.items() if n.startswith("context.")}
    assert set(average.state_dict()) == set(own) and average.params.own_context
    changed = {n for n, v in average.state_dict().items() if not torch.equal(v, own[n])}
    assert {name.split(".")[0] for name in changed} == {"matcher", "matcher_context"}


def test_an_own_context_changes_nothing_until_it_is_trained(head, banks):
    batch = draw_recolourings(banks[0], 3, 1, 0)
    matches = [h.match(batch.source, batch.target) for h in (head, head.with_own_context())]
    assert all(torch.equal(a, b) for a, b in zip(*matches, strict=True))


def test_a_head_with_its_own_context_is_saved_and_read(head, tmp_path):
    head.with_own_context().save_pretrained(tmp_path)
    again = type(head).from_pretrained(tmp_path)
    assert again.params.own_context and hasattr(again, "matcher_context")


def test_training_learns(banks, tmp_path):
    options = MatcherTrainingOptions(60, 6, 0.5, 3e-3, 1e-4)
    _, losses = train_matcher(new_head(), *banks, options, seed=1, work_dir=tmp_path)
    errors = [step["colour"] for step in losses]
    assert np.mean(errors[-20:]) < 0.9 * np.mean(errors[:20])


def test_interrupted_training_continues_to_the_same_weights(banks, tmp_path, monkeypatch):
    whole, losses = train_matcher(new_head(), *banks, OPTIONS, seed=1, work_dir=tmp_path / "whole")
    monkeypatch.setattr(matcher_training, "SAVE_EVERY", 2)

    class KilledError(Exception):
        pass

    update = TrainingState.update

    def stop(state, losses):
        if state.step == 3:
            raise KilledError
        update(state, losses)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(TrainingState, "update", stop)
        train_matcher(new_head(), *banks, OPTIONS, seed=1, work_dir=tmp_path / "part")
    resumed, rest = train_matcher(new_head(), *banks, OPTIONS, seed=1, work_dir=tmp_path / "part")
    assert rest == losses
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_checkpoint_of_another_head_is_refused(banks, tmp_path):
    train_matcher(new_head(), *banks, OPTIONS, seed=1, work_dir=tmp_path)
    torch.manual_seed(5)
    other = type(new_head())(PARAMS)
    with pytest.raises(TrainingError, match="other options"):
        train_matcher(other, *banks, OPTIONS, seed=1, work_dir=tmp_path)


def test_weights_are_as_good_as_more_pixels(banks):
    samples = banks[0].samples
    od, logits, groups = (
        part[:1].float()
        for part in (samples.od[:, None, HERE], samples.logits[:, :1], samples.group_logits[:, :1])
    )
    doubled = torch.cat([torch.arange(PIXELS), torch.arange(PIXELS // 2)])
    weights = torch.ones(1, 1, PIXELS)
    weights[..., : PIXELS // 2] = 2
    weights = weights / weights.mean()
    context = samples.context[:1, :1]
    found = sampled_statistics(od, logits, groups, context, weights)
    repeated = sampled_statistics(
        od[:, :, doubled], logits[..., doubled], groups[..., doubled], context
    )
    torch.testing.assert_close(found.fractions, repeated.fractions)
    torch.testing.assert_close(found.means(), repeated.means())
    torch.testing.assert_close(found.context, repeated.context)
