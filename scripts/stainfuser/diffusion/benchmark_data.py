"""What a model is measured on: phantoms of unseen laboratories, real images, degenerate inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from stainfuser.diffusion.benchmark_arms import Image
from stainfuser.diffusion.head_evaluation import COMPOSITIONS, ExactTask
from stainfuser.diffusion.head_sheets import window
from stainfuser.io.image_collection import CollectionEntry, is_mosaic, read_entry
from stainfuser.seeds import generator
from stainfuser.stain.benchmark_tasks import FAN_PROTOCOLS, split_mosaic
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_layout import Composition, target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import Section, build_section
from stainfuser.stain.phantom_unseen import draw_laboratory, with_scanner_optics

PHANTOM_PX, PHANTOM_MPP = 384, 0.5
PHANTOMS, SAME_OPTICS = "phantoms", "phantoms, same optics"
# Windows that are shown, and measured, source by target.
WINDOW_PX = 400
PEN_RGB = {"blue": (38, 62, 150), "green": (34, 110, 72), "black": (30, 28, 34)}
GLASS_RGB = (243, 242, 245)


def phantom_tasks(pairs: int, seed: int) -> list[ExactTask]:
    """Return tasks between `pairs` pairs of drawn laboratories, the truth painted.

    For each the reference is tissue of the same composition, and then of another (fat and muscle
    in place of glands). The truth is the section in the other laboratory, scanner and all
    (`PHANTOMS`), or with the source's focus, noise and compression (`SAME_OPTICS`), so that stain
    and colour alone differ.
    """
    grid = Grid(PHANTOM_PX, PHANTOM_MPP)
    tasks = []
    for number in range(pairs):
        rng = generator(seed, "benchmark", "phantoms", str(number))
        first, second = draw_laboratory(rng), draw_laboratory(rng)
        section = _section(rng, grid, target_composition(grid))
        references = {
            "matched": _section(rng, grid, target_composition(grid)),
            "mismatched": _section(rng, grid, _other_composition(grid)),
        }
        # One seed for source and truth: the same noise on both, where the optics are the same.
        noise = int(rng.integers(2**31))
        source = render(section, first, np.random.default_rng(noise))
        untouched = {
            composition: render(reference, first, np.random.default_rng(noise))
            for composition, reference in references.items()
        }
        for data, laboratory in (
            (PHANTOMS, second),
            (SAME_OPTICS, with_scanner_optics(second, first)),
        ):
            truth = render(section, laboratory, np.random.default_rng(noise))
            tasks += [
                ExactTask(
                    f"{data}, {composition}",
                    (data,),
                    str(number),
                    source,
                    render(references[composition], laboratory, rng),
                    truth,
                    untouched[composition],
                )
                for composition in COMPOSITIONS
            ]
    return tasks


def read_images(
    folder: str | Path,
    entries: Sequence[CollectionEntry],
    wanted: Callable[[CollectionEntry], bool],
) -> dict[str, Image]:
    """Return the wanted images of a collection by file name, (H, W, 3) uint8 RGB."""
    return {entry.file: read_entry(folder, entry) for entry in entries if wanted(entry)}


def sheet_windows(images: Mapping[str, Image]) -> dict[str, Image]:
    """Return a window of every image; of a mosaic, one of its protocols, another for each."""
    windows, mosaics = {}, 0
    for name, rgb in images.items():
        if is_mosaic(name):
            protocol = 2 * mosaics % FAN_PROTOCOLS
            rgb = np.concatenate(split_mosaic(rgb)[protocol])
            name = f"fan/block {name.rsplit('.', 1)[0][-1]}, {protocol + 1}"
            mosaics += 1
        windows[name] = window(rgb, WINDOW_PX)
    return windows


def degenerate_inputs(tissue: Mapping[str, Image], seed: int) -> dict[str, dict[str, Image]]:
    """Return kind → name → image of what no model should recolour: blank, pen, grey.

    `tissue` are windows of H&E tissue, which grey ones are made of.
    """
    rng = generator(seed, "benchmark", "degenerate")
    side = WINDOW_PX
    noise = rng.normal(0, 1.5, (side, side, 3))
    blank = {
        "white": np.full((side, side, 3), 255, np.uint8),
        "glass": _rounded(np.array(GLASS_RGB) + noise),
        "yellowish glass": _rounded(np.array((238, 234, 221)) + noise),
        "black": np.zeros((side, side, 3), np.uint8),
    }
    pen = {name: _pen_stroke(rng, colour) for name, colour in PEN_RGB.items()}
    grey = {
        name: np.repeat(_rounded(rgb @ np.array([0.2126, 0.7152, 0.0722]))[..., None], 3, axis=2)
        for name, rgb in list(tissue.items())[:3]
    }
    return {"blank": blank, "pen": pen, "grey": grey}


def _section(rng: np.random.Generator, grid: Grid, composition: Composition) -> Section:
    return build_section(rng, grid, composition, artefacts=False)


def _other_composition(grid: Grid) -> Composition:
    return dataclasses.replace(
        target_composition(grid), gland_fraction=0.05, muscle_fraction=0.35, fat_fraction=0.2
    )


def _pen_stroke(rng: np.random.Generator, colour: Sequence[int]) -> Image:
    """Return a window of glass under a broad stroke of a marker, uneven as ink is."""
    rows, columns = np.mgrid[:WINDOW_PX, :WINDOW_PX] / WINDOW_PX
    middle = 0.5 + 0.2 * np.sin(2.0 * columns + rng.uniform(0, 6))
    edge = ndimage.gaussian_filter(rng.normal(0, 1, rows.shape), 6)
    inside = 1 / (1 + np.exp((np.abs(rows - middle) - 0.22 + 0.1 * edge) * 60))
    density = inside * (0.85 + ndimage.gaussian_filter(rng.normal(0, 1, rows.shape), 25) * 2)
    od = -np.log(np.array(colour) / np.array(GLASS_RGB)) * density[..., None].clip(0, 1.2)
    return _rounded(np.array(GLASS_RGB) * np.exp(-od) + rng.normal(0, 1.5, (*rows.shape, 3)))


def _rounded(values: np.ndarray) -> Image:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
