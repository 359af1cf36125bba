from __future__ import annotations

import json

import numpy as np
import pytest

from fake_pipe import recolour
from stainfuser.stain.metrics import ciede2000_map
from stainfuser.stain.operators import (
    ColourOperator,
    apply_lookup_table,
    fit_and_validate,
    fit_operator,
)
from stainfuser.stain.optical_density import rgb_to_od

WHITE = np.array([244.0, 242.0, 243.0])


def he_tiles(count: int = 8, side_px: int = 128, seed: int = 0) -> np.ndarray:
    """Tiles of glass, stroma and nuclei in varying strength, (N, S, S, 3) uint8."""
    rng = np.random.default_rng(seed)
    tiles = np.empty((count, side_px, side_px, 3))
    tiles[:] = (228, 165, 200)
    tiles += 25 * rng.random((count, 1, 1, 1)) * np.array([-1, -1.5, -0.5])
    tiles[:, :20] = WHITE
    for tile in tiles:
        for y, x in rng.integers(20, side_px - 12, (60, 2)):
            tile[y : y + 12, x : x + 12] = np.array([100, 65, 145]) + rng.normal(0, 12)
    return np.clip(tiles + rng.normal(0, 3, tiles.shape), 0, 255).astype(np.uint8)


def fit(tiles, rendered, **options):
    return fit_and_validate(tiles, rendered, WHITE, np.random.default_rng(0), **options)


def test_a_known_map_is_found():
    tiles = he_tiles()
    result = fit(tiles, recolour(tiles, WHITE))
    assert result.residual_de < 0.5
    assert result.residual_px_de < 1.0
    assert result.residual_de_range[0] <= result.residual_de <= result.residual_de_range[1]
    assert result.tiles == 8 and result.held_out
    unseen = he_tiles(1, seed=9)[0][20:]
    difference = ciede2000_map(result.operator(unseen), recolour(unseen, WHITE))
    assert np.percentile(difference, 95) < 1.0


def test_white_and_lighter_stay_whatever_was_fitted():
    tiles = he_tiles()
    operator = fit(
        tiles, np.clip(recolour(tiles).astype(int) - 40, 0, 255).astype(np.uint8)
    ).operator
    glass = np.array([[WHITE, (255, 255, 255), (247, 246, 250)]]).astype(np.uint8)
    assert (operator(glass) == glass).all()
    assert np.abs(apply_lookup_table(glass, operator.lookup_table()).astype(int) - glass).max() <= 1


def test_green_ink_stays():
    tiles = he_tiles()
    operator = fit(tiles, recolour(tiles, WHITE)).operator
    ink = np.array([[(20, 140, 110), (90, 190, 170), (40, 100, 200)]], np.uint8)
    through_table = apply_lookup_table(ink, operator.lookup_table())
    assert np.abs(through_table.astype(int) - ink).max() <= 2


def test_the_noise_of_glass_is_not_amplified():
    tiles = he_tiles()
    operator = fit(tiles, recolour(tiles, WHITE)).operator
    noise = np.random.default_rng(1).normal(0, 2, (64, 64, 3))
    glass = np.clip(WHITE + noise, 0, 255).astype(np.uint8)
    mapped = apply_lookup_table(glass, operator.lookup_table())
    assert ciede2000_map(glass, mapped).max() < 1.0


def test_the_table_is_the_operator():
    tiles = he_tiles()
    operator = fit(tiles, recolour(tiles, WHITE)).operator
    by_table = apply_lookup_table(tiles[0], operator.lookup_table())
    difference = np.abs(by_table.astype(int) - operator(tiles[0]))
    assert difference.mean() < 0.5 and difference.max() <= 4


def test_invented_structure_does_not_move_the_fit():
    tiles = he_tiles()
    rendered = recolour(tiles, WHITE)
    rendered[:, 60:80, 60:90] = (20, 200, 30)
    operator = fit(tiles, rendered).operator
    unseen = he_tiles(1, seed=9)[0][20:]
    assert np.median(ciede2000_map(operator(unseen), recolour(unseen, WHITE))) < 1.0


def test_another_colour_per_tile_has_a_large_residual():
    tiles = he_tiles()
    rendered = recolour(tiles, WHITE).astype(int)
    rendered += np.random.default_rng(3).integers(-60, 20, (8, 1, 1, 3))
    assert fit(tiles, np.clip(rendered, 0, 255).astype(np.uint8)).residual_de > 5


def test_unlike_colours_are_not_extrapolated_quadratically():
    tiles = he_tiles()
    operator = fit(tiles, recolour(tiles, WHITE)).operator
    ink = np.array([[(220, 8, 12), (90, 40, 4), (5, 5, 5), (0, 0, 0)]], np.uint8)
    relative = rgb_to_od(ink) + np.log((WHITE + 1) / 256)
    mapped = operator.map_od(rgb_to_od(ink).astype(float)) + np.log((WHITE + 1) / 256)
    wanted = np.clip(relative * operator.gains, None, 5.545 + np.log((WHITE + 1) / 256))
    assert np.abs(mapped - wanted).max() < 0.05


@pytest.mark.parametrize(
    "tile", [np.full((64, 64, 3), 244, np.uint8), np.zeros((64, 64, 3), np.uint8)]
)
def test_degenerate_tiles_are_answered(tile):
    result = fit(tile[None], tile[None])
    mapped = result.operator(tile)
    assert np.abs(mapped.astype(int) - tile).max() <= 1
    assert result.tiles == (0 if tile.max() else 1)
    assert np.isinf(result.residual_de) == bool(tile.max())


def test_one_tile_is_not_called_held_out():
    tiles = he_tiles(1)
    assert not fit(tiles, recolour(tiles, WHITE)).held_out


def test_json_and_back():
    tiles = he_tiles(2)
    operator = fit(tiles, recolour(tiles, WHITE)).operator
    back = ColourOperator.from_json(json.loads(json.dumps(operator.to_json())))
    assert (back(tiles[0]) == operator(tiles[0])).all()


def test_fit_is_reproducible():
    tiles = he_tiles(3)
    od = rgb_to_od(tiles).reshape(-1, 3)
    first, second = (fit_operator(od, od[::-1][::-1] * 1.1, WHITE) for _ in range(2))
    assert (first.coefficients == second.coefficients).all()
