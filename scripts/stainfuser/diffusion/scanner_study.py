"""The same tissue by several scanners, of a user's table or painted: registered and measured."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.arms import ArmNotAvailableError, build_arm
from stainfuser.diffusion.head_evaluation import evaluate_fan
from stainfuser.diffusion.study_numbers import Measured
from stainfuser.evaluation_arms import ARMS
from stainfuser.io.images import read_image
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr, ssim
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_laboratories import Laboratory
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import render
from stainfuser.stain.phantom_tissue import build_section
from stainfuser.stain.phantom_unseen import draw_laboratory
from stainfuser.stain.registration import register_pair

COMPARED_ARMS = ("identity", "reinhard", "macenko", "vahadane", "operator", "render_1")
# Structure that two scanners' images of one tissue share at least when they lie on each other.
LEAST_AGREEMENT = 0.2
SCANNER_FIELDS = (
    "sensor_nm",
    "lamp_warmth",
    "blur_um",
    "sharpening",
    "glare",
    "noise",
    "crosstalk",
    "gamma",
    "contrast",
    "black_point",
    "white_point",
    "jpeg",
)
PHANTOM_PX, PHANTOM_MPP, PHANTOM_SCANNERS, PHANTOM_REGIONS = 320, 0.5, 3, 4
# The second and third scanner see the section this much further on, px (dy, dx).
PHANTOM_SHIFTS = ((0, 0), (5, -3), (-8, 12))
SHIFT, AGREEMENT, COLOUR = "shift_px", "agreement", "ciede2000_truth"
FAN = "fan protocols"

Image = NDArray[np.uint8]
Regions = Mapping[str, Mapping[str, Image]]
Normalizers = Mapping[str, Callable[[Image], Callable[[Image], Image]]]


def available_arms(model_dir: str | Path | None, seed: int, threads: int) -> Normalizers:
    """Return arm → function of a target → function of a source, (H, W, 3) uint8 RGB each."""

    def fitted(name: str, target: Image) -> Callable[[Image], Image]:
        normalize = build_arm(name, target, model_dir=model_dir, seed=seed, threads=threads)
        return lambda source: normalize(source[None])[0]

    blank = np.full((64, 64, 3), 240, np.uint8)
    blank[16:48, 16:48] = (170, 90, 150)
    known: dict[str, Callable[[Image], Callable[[Image], Image]]] = {}
    for name in COMPARED_ARMS:
        try:
            fitted(name, blank)
        except ArmNotAvailableError as error:
            LOGGER.info("%s is left out: %s", name, error)
            continue
        known[ARMS[name].label] = lambda target, name=name: fitted(name, target)
    return known


def read_regions(table: Mapping[str, Mapping[str, Path]]) -> Regions:
    """Read the images of a table (`io.scanner_table`); those of a region are cut to one size."""
    regions = {}
    for name, paths in table.items():
        images = {scanner: read_image(path) for scanner, path in paths.items()}
        height, width = (min(image.shape[axis] for image in images.values()) for axis in (0, 1))
        regions[name] = {scanner: image[:height, :width] for scanner, image in images.items()}
    return regions


def phantom_regions(seed: int) -> Regions:
    """Paint sections of one laboratory as several scanners see them, a known shift apart."""
    rng = generator(seed, "scanner study")
    protocol = draw_laboratory(rng)
    scanners = [_with_scanner(protocol, draw_laboratory(rng)) for _ in range(PHANTOM_SCANNERS)]
    grid = Grid(PHANTOM_PX + 64, PHANTOM_MPP)
    regions = {}
    for number in range(PHANTOM_REGIONS):
        own = generator(seed, "scanner study", "region", number)
        section = build_section(own, grid, target_composition(grid), artefacts=False)
        seen = {}
        for place, (scanner, (dy, dx)) in enumerate(zip(scanners, PHANTOM_SHIFTS, strict=True)):
            rgb = render(section, scanner, own)[32 + dy :, 32 + dx :]
            seen[f"scanner {place + 1}"] = rgb[:PHANTOM_PX, :PHANTOM_PX]
        regions[f"region {number + 1}"] = seen
    return regions


def _with_scanner(protocol: Laboratory, scanner: Laboratory) -> Laboratory:
    return dataclasses.replace(protocol, **{f: getattr(scanner, f) for f in SCANNER_FIELDS})


def measure_scanners(regions: Regions, arms: Normalizers, data: str) -> list[Measured]:
    """Return what each arm reaches for every ordered pair of scanners and every region.

    The reference is the next region that the target's scanner has seen; the truth is the same
    region by that scanner, moved onto the source and cut to what both show. How far it was moved,
    and how well it then agrees, are rows of the arm "registration".
    """
    rows: list[Measured] = []
    for name, images in regions.items():
        for source_scanner, target_scanner in itertools.permutations(images, 2):
            unit = f"{name}: {source_scanner} to {target_scanner}"
            reference = _reference(regions, name, target_scanner)
            if reference is None:
                continue
            source = images[source_scanner]
            rows += _measure_pair(source, images[target_scanner], reference, arms, data, unit, name)
    return rows


def _reference(regions: Regions, name: str, scanner: str) -> Image | None:
    """Return another region of a scanner, the next in the table's order."""
    names = list(regions)
    place = names.index(name)
    for other in names[place + 1 :] + names[:place]:
        if scanner in regions[other]:
            return regions[other][scanner]
    return None


def _measure_pair(
    source: Image,
    truth: Image,
    reference: Image,
    arms: Normalizers,
    data: str,
    unit: str,
    cluster: str,
) -> list[Measured]:
    pair = register_pair(source, truth)
    agreement = gradient_correlation(pair.fixed, pair.moved)
    shift = float(np.hypot(*pair.shift_px))
    found = {SHIFT: shift, AGREEMENT: agreement}
    rows = [Measured("registration", data, unit, cluster, m, v) for m, v in found.items()]
    if agreement < LEAST_AGREEMENT:
        LOGGER.warning("%s: left out, the images do not lie on each other (%.2f)", unit, agreement)
        return rows
    top, left = (max(0, int(np.ceil(by))) for by in pair.shift_px)
    height, width = pair.fixed.shape[:2]
    for arm, fit in arms.items():
        result = fit(reference)(source)[top : top + height, left : left + width]
        values = {
            COLOUR: ciede2000(result, pair.moved),
            "psnr_truth": psnr(result, pair.moved),
            "ssim_truth": ssim(result, pair.moved),
            "gradient_correlation_source": gradient_correlation(pair.fixed, result),
        }
        rows += [Measured(arm, data, unit, cluster, m, v) for m, v in values.items()]
    return rows


def measure_fan(mosaics: list[Image], arms: Normalizers, step: int) -> list[Measured]:
    """Return the difference of lightness bands between the same regions in nine protocols.

    Adjacent sections: regions correspond, px do not, so nothing is registered.
    """
    counts: dict[tuple[str, str], int] = {}
    rows = []
    for row in evaluate_fan(arms, mosaics, step):
        key = (row["arm"], row["unit"])
        counts[key] = counts.get(key, -1) + 1
        unit = f"block {row['unit']}, pair {counts[key]}"
        values: dict[str, Any] = {
            COLOUR: row["de"],
            "gradient_correlation_source": row["structure"],
        }
        rows += [Measured(row["arm"], FAN, unit, row["unit"], m, v) for m, v in values.items()]
    return rows
