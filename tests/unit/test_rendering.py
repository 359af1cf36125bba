from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from fake_pipe import FakePipe, recolour
from stainfuser.diffusion.rendering import (
    RenderedPlane,
    Renderer,
    TileGrid,
    TilesInMemory,
    noise_field,
)
from stainfuser.diffusion.slide_view import SlideView, choose_plane_mpp, draw_tiles
from stainfuser.stain.optical_density import rgb_to_od


@pytest.mark.parametrize("size", [(1000, 700), (64, 64), (10, 300), (449, 960)])
@pytest.mark.parametrize("overlap_px", [0, 16, 32])
def test_weights_add_up_to_one_everywhere(size, overlap_px):
    width, height = size
    grid = TileGrid(width, height, 64, overlap_px)
    total = np.zeros((height, width))
    for row, column in grid.touching(0, 0, height, width):
        down = grid.weights(row, grid.shape[0], 0, height)[:, None]
        total += down * grid.weights(column, grid.shape[1], 0, width)
    assert np.allclose(total, 1.0, atol=1e-6)


def test_tiles_that_touch_an_area_are_all_found():
    grid = TileGrid(1000, 800, 64, 16)
    for top, left, bottom, right in ((0, 0, 1, 1), (47, 48, 49, 64), (300, 500, 420, 777)):
        found = set(grid.touching(top, left, bottom, right))
        for row in range(grid.shape[0]):
            for column in range(grid.shape[1]):
                y, x = 48 * row, 48 * column
                touches = y < bottom and y + 64 > top and x < right and x + 64 > left
                assert touches == ((row, column) in found)


def make_plane(pipe: FakePipe, picture: np.ndarray, is_wanted=lambda x, y: True) -> RenderedPlane:
    height, width = picture.shape[:2]
    padded = np.pad(picture, ((0, 64), (0, 64), (0, 0)), mode="symmetric")
    render = Renderer(pipe, picture, seed=0, num_inference_steps=None)
    return RenderedPlane(
        TileGrid(width, height, 64, 16),
        lambda x, y: padded[y : y + 64, x : x + 64],
        render,
        TilesInMemory(),
        is_wanted,
    )


def test_the_change_is_the_models_and_each_tile_is_rendered_once():
    picture = np.random.default_rng(0).integers(90, 230, (300, 260, 3)).astype(np.uint8)
    pipe = FakePipe()
    plane = make_plane(pipe, picture)
    for top in (0, 100, 200):
        od, change = plane.change(top, 0, top + 100, 260)
        rows = picture[top : top + 100]
        assert np.allclose(od, rgb_to_od(rows), atol=1e-5)
        assert np.allclose(change, rgb_to_od(recolour(rows)) - rgb_to_od(rows), atol=1e-5)
    assert pipe.tiles == np.prod(plane.grid.shape)


def test_tiles_nobody_wants_never_reach_the_model():
    pipe = FakePipe()
    plane = make_plane(pipe, np.full((300, 300, 3), 200, np.uint8), lambda x, y: x == y == 48)
    _, change = plane.change(0, 0, 300, 300)
    assert pipe.tiles == 1
    assert not change[:48].any() and not change[112:].any() and change[60:100, 60:100].all()


def test_noise_is_one_field():
    whole = noise_field(1, 4, 0, 0, 150, 140)
    assert (noise_field(1, 4, 60, 70, 50, 66) == whole[:, 60:110, 70:136]).all()
    assert abs(whole.mean()) < 0.01 and abs(whole.std() - 1) < 0.01
    assert (noise_field(2, 4, 0, 0, 8, 8) != whole[:, :8, :8]).all()


def test_models_that_start_from_noise_get_their_piece_of_the_field():
    seen = {}

    class NoisyPipe(FakePipe):
        latent_factor, size_multiple = 4, 16
        unet = SimpleNamespace(config=SimpleNamespace(in_channels=3))

        def __call__(self, source, target, *, latents, **rest):
            seen["latents"] = latents.numpy()
            return super().__call__(source, target, **rest)

    pipe = NoisyPipe()
    pipe.config.objective = "v_zero_snr"
    render = Renderer(pipe, np.zeros((8, 8, 3), np.uint8), seed=5, num_inference_steps=2)
    render([np.zeros((40, 64, 3), np.uint8)] * 2, [(0, 0), (48, 96)])
    assert seen["latents"].shape == (2, 3, 12, 16)
    assert (seen["latents"][1] == noise_field(5, 3, 12, 24, 12, 16)).all()


def make_view(width_px: int, height_px: int, mask: np.ndarray, **changes) -> SlideView:
    weight = np.where(mask, 255, 0).astype(np.uint8)
    given = {"mpp": 0.5, "plane_mpp": 0.5, **changes}
    return SlideView(width_px, height_px, given["mpp"], given["plane_mpp"], weight)


def test_tiles_are_drawn_from_tissue_all_over_the_slide():
    mask = np.zeros((100, 100), bool)
    mask[10:90, 20:50] = True
    view = make_view(10_000, 10_000, mask)
    tiles = draw_tiles(view, 256, 16, np.random.default_rng(0))
    assert len(tiles) == len(set(tiles)) == 16
    rows = [y for _, y in tiles]
    assert max(rows) > 7000 and min(rows) < 2500
    assert all(1800 <= x < 5000 and 800 <= y < 9000 for x, y in tiles)
    assert tiles == draw_tiles(view, 256, 16, np.random.default_rng(0))


def test_scarce_tissue_is_still_found():
    mask = np.zeros((100, 100), bool)
    mask[50, 50] = True
    tiles = draw_tiles(make_view(10_000, 10_000, mask), 512, 8, np.random.default_rng(0))
    assert tiles and all(abs(x - 5000) < 600 and abs(y - 5000) < 600 for x, y in tiles)
    assert draw_tiles(make_view(900, 900, mask[:9, :9]), 512, 8, np.random.default_rng(0)) == []


def test_resolution_of_the_plane():
    assert choose_plane_mpp(0.5, 0.25) == 0.5
    assert choose_plane_mpp(None, 0.25) == 0.25
    assert choose_plane_mpp(0.5, 4.0) == 2.0
    view = make_view(1001, 500, np.ones((5, 10), bool), mpp=0.25, plane_mpp=0.5)
    assert (view.scale, view.plane_px) == (2.0, (500, 250))
    assert make_view(100, 100, np.ones((2, 2), bool), mpp=0.499).scale == 1.0
