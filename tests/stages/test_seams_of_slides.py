"""Steps of colour at the borders of tiles and blocks are as large as anywhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from normalize_files import OPTIONS, Case

from fake_pipe import FakePipe, recolour
from stainfuser.diffusion.seam_check import measure_seams
from stainfuser.io.masks import write_mask
from stainfuser.io.slides import SlideReader

SIDE_PX = 1600
STRIDE_PX = OPTIONS["tile_px"] - OPTIONS["overlap_px"]
# Where tiles of the model begin and end, and the borders of the output's tiles and blocks.
BORDERS_PX = sorted(
    {at + more for at in range(STRIDE_PX, 3000, STRIDE_PX) for more in (0, OPTIONS["overlap_px"])}
    | set(range(OPTIONS["output_tile_px"], 3000, OPTIONS["output_tile_px"]))
    | set(range(OPTIONS["block_px"], 3000, OPTIONS["block_px"]))
)


def moody(tile: np.ndarray) -> np.ndarray:
    """A model that gives every tile a shade of its own: up to 6 grey levels."""
    shade = 6.0 * np.sin(50.0 * tile.astype(float).mean())
    return np.clip(recolour(tile) + shade, 0, 255).astype(np.uint8)


def pieces_of_their_own(rgb: np.ndarray, side_px: int = 256) -> np.ndarray:
    """What normalising each tile for itself looks like."""
    result = rgb.copy()
    for y in range(0, rgb.shape[0], side_px):
        for x in range(0, rgb.shape[1], side_px):
            result[y : y + side_px, x : x + side_px] = moody(rgb[y : y + side_px, x : x + side_px])
    return result


def score(case: Case) -> float:
    """Return the seam score of a result over its tissue."""
    inside = case.place(of_tissue=True)

    def is_tissue(line) -> bool:
        rows = np.s_[line.y_px : line.y_px + line.size_px[1]]
        pixels = case.picture[rows, line.x_px : line.x_px + line.size_px[0]]
        return bool(pixels.max(-1).mean() < 238) and bool(inside[line.y_px, line.x_px])

    with SlideReader(case.slide_path) as source, SlideReader(case.output_path) as output:
        return measure_seams(source, output, BORDERS_PX, is_tissue, np.random.default_rng(0))


def uniform(folder: Path) -> Case:
    """Tissue of one colour, with the noise of a camera; all of it is changed."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 2, (SIDE_PX, SIDE_PX, 3))
    case = Case(folder, (np.array([200.0, 140.0, 180.0]) + noise).astype(np.uint8))
    case.mask[:] = True
    write_mask(folder / "mask.png", case.mask, {})
    return case


def real(folder: Path, shared_data: Path) -> Case:
    with SlideReader(shared_data / "slides/cmu-1-small-region.svs") as reader:
        return Case(folder, reader.read(0, 0, *reader.size_px), mpp=0.499)


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_a_uniform_slide(tmp_path, mode):
    case = uniform(tmp_path)
    case.run(FakePipe(moody), mode=mode, residual_limit_de=50.0)
    assert score(case) < 1.25


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_a_real_slide(tmp_path, shared_data, mode):
    case = real(tmp_path, shared_data)
    case.run(FakePipe(moody), mode=mode, residual_limit_de=50.0)
    assert score(case) < 1.25


def test_tiles_for_themselves_would_be_seen(tmp_path):
    from stainfuser.io.pyramid_writer import write_slide

    case = uniform(tmp_path)
    case.output_path.parent.mkdir(parents=True)
    write_slide(case.output_path, pieces_of_their_own(case.picture), mpp=0.5, objective_power=20)
    assert score(case) > 2
