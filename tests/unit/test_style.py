from __future__ import annotations

import numpy as np
import pytest

from painted_tiles import paint_tile
from stainfuser.stain.classical import macenko, reinhard
from stainfuser.stain.metrics import ciede2000, gradient_correlation
from stainfuser.stain.recolouring import (
    VECTOR_LENGTH,
    Recolouring,
    draw_recolouring,
    is_realistic,
    random_recolouring,
)
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS
from stainfuser.stain.style import class_guided, fit_style, measure_look, monge_kantorovich


def test_other_tissue_of_another_laboratory_gives_the_truth():
    source = paint_tile(1, "violet", 128, 0.15, lumen=True)
    truth = paint_tile(1, "blue", 128, 0.15, lumen=True)
    target = paint_tile(2, "blue", 128, 0.30, lumen=True)
    result = class_guided(source, target)
    assert ciede2000(source, truth) > 6
    assert ciede2000(result, truth) < 2.5
    assert gradient_correlation(source, result) > 0.97


def test_denser_nuclei_in_the_target_do_not_paint_stroma():
    source = paint_tile(1, "violet", 128, 0.05)
    truth = paint_tile(1, "pale", 128, 0.05)
    dense = paint_tile(2, "pale", 128, 0.45)
    guided, plain = class_guided(source, dense), reinhard(source, dense)
    assert ciede2000(guided, truth) < 5
    assert ciede2000(guided, truth) < 0.6 * ciede2000(plain, truth)


def test_its_own_stain_is_left_alone():
    source, other = paint_tile(1, side_px=128), paint_tile(2, side_px=128)
    assert ciede2000(class_guided(source, source), source) < 0.5
    assert ciede2000(class_guided(source, other), source) < 2.5


def test_glass_stays_glass_even_where_the_target_shows_none():
    source = paint_tile(3, "violet", 128, lumen=True)
    centre = (slice(56, 72), slice(56, 72))
    result = class_guided(source, paint_tile(4, "blue", 128))
    assert np.abs(result[centre].astype(int) - source[centre]).max() <= 6


def test_bland_tissue_is_not_stretched_into_grain():
    bland = paint_tile(5, "pale", 128, nuclear_fraction=0.0)
    result = class_guided(bland, paint_tile(6, "blue", 128, nuclear_fraction=0.4))
    assert result.std(axis=(0, 1)).max() < 3 * bland.std(axis=(0, 1)).max()


def test_equal_inputs_give_equal_bytes_and_leave_the_source():
    source, target = paint_tile(1, "violet"), paint_tile(2, "blue")
    before = source.copy()
    assert class_guided(source, target).tobytes() == class_guided(source, target).tobytes()
    np.testing.assert_array_equal(source, before)


def test_images_of_other_sizes():
    result = class_guided(paint_tile(1)[:50, :33], paint_tile(2, side_px=300))
    assert result.shape == (50, 33, 3)
    assert result.dtype == np.uint8


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_images_give_an_image(value: int):
    flat, tissue = np.full((64, 64, 3), value, np.uint8), paint_tile(1)
    for source, target in ((flat, tissue), (tissue, flat), (flat, flat)):
        assert class_guided(source, target).shape == source.shape


def test_a_target_without_tissue_changes_nothing():
    source = paint_tile(1)
    result = class_guided(source, np.full((64, 64, 3), 255, np.uint8))
    assert np.abs(result.astype(int) - source).max() <= 1


def test_the_map_of_one_tile_serves_another():
    look = fit_style(measure_look(paint_tile(1)), measure_look(paint_tile(2, "blue")))
    assert ciede2000(look(paint_tile(7)), paint_tile(7, "blue")) < 4


def test_monge_kantorovich_carries_covariances():
    rng = np.random.default_rng(1)
    source, target = (np.cov(rng.normal(size=(3, 40))) for _ in range(2))
    transport = monge_kantorovich(source, target)
    np.testing.assert_allclose(transport, transport.T)
    np.testing.assert_allclose(transport @ source @ transport, target, atol=0.02)


def test_exact_pairs_of_real_tissue_are_matched_better_than_by_reinhard_and_macenko(shared_data):
    from stainfuser.io.images import read_image

    image = read_image(shared_data / "images" / "veta" / "example1.tif")
    errors = {class_guided: [], reinhard: [], macenko: []}
    for seed in range(6):
        rng = np.random.default_rng(seed)
        (ya, xa), (yb, xb) = rng.integers(0, 1024 - 256, (2, 2))
        first, second = image[ya : ya + 256, xa : xa + 256], image[yb : yb + 256, xb : xb + 256]
        look = draw_recolouring(REFERENCE_DIRECTIONS, second, rng)
        for method, found in errors.items():
            found.append(ciede2000(method(first, look(second)), look(first)))
    means = {method.__name__: np.mean(found) for method, found in errors.items()}
    assert means["class_guided"] < 0.9 * min(means["reinhard"], means["macenko"]), means


def test_a_recolouring_is_a_function_of_the_colour_alone():
    look = random_recolouring(REFERENCE_DIRECTIONS, np.random.default_rng(3))
    tile = paint_tile(1)
    order = np.random.default_rng(1).permutation(64 * 64)
    shuffled = tile.reshape(-1, 3)[order].reshape(tile.shape)
    np.testing.assert_array_equal(
        look(shuffled), look(tile).reshape(-1, 3)[order].reshape(tile.shape)
    )


def test_a_recolouring_survives_being_stored():
    look = random_recolouring(REFERENCE_DIRECTIONS, np.random.default_rng(3))
    vector = look.to_vector()
    assert vector.shape == (VECTOR_LENGTH,)
    tile = paint_tile(1)
    np.testing.assert_array_equal(Recolouring.from_vector(vector)(tile), look(tile))


def test_drawn_recolourings_are_realistic_strong_and_various():
    tile = paint_tile(1)
    looks = [
        draw_recolouring(REFERENCE_DIRECTIONS, tile, np.random.default_rng(s))(tile)
        for s in range(12)
    ]
    assert all(is_realistic(look) for look in looks)
    assert np.median([ciede2000(tile, look) for look in looks]) > 5
    assert np.std([look.mean(axis=(0, 1)) for look in looks], axis=0).min() > 5


@pytest.mark.parametrize("colour", [(250, 250, 250), (20, 10, 20), (120, 160, 120)])
def test_glass_black_and_green_are_not_realistic(colour):
    noise = np.random.default_rng(1).integers(-15, 15, (32, 32, 1))
    tile = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    assert not is_realistic(tile)
