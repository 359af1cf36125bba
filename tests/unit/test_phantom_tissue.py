"""Sections: their plan, their substances and what lies on their glass."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from stainfuser.errors import ConfigError
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import (
    CHROMATIN,
    COLLAGEN,
    INK,
    SUBSTANCES,
    Grid,
    checked_grid,
)
from stainfuser.stain.phantom_layout import plan_tissue, slide_composition, target_composition
from stainfuser.stain.phantom_structures import GLAND_KINDS, GLAND_MIXES
from stainfuser.stain.phantom_tissue import build_section

GRID = Grid(896, 0.5)


def grown(seed, grid=GRID, artefacts=True):
    rng = generator(seed, "test tissue")
    return build_section(rng, grid, slide_composition(rng, grid), artefacts=artefacts)


@pytest.fixture(scope="module")
def section():
    return grown(1)


@pytest.fixture(scope="module")
def wide_layout():
    rng = generator(1, "test layout")
    grid = Grid(4096, 0.5)
    return plan_tissue(rng, grid, slide_composition(rng, grid))


def test_the_same_seed_grows_the_same_section(section):
    again = grown(1)
    assert np.array_equal(section.amounts, again.amounts)
    assert np.array_equal(section.labels, again.labels)
    assert section.pen == again.pen
    assert not np.array_equal(section.amounts, grown(2).amounts)


def test_amounts_are_finite_and_every_substance_occurs(section):
    assert section.amounts.shape == (len(SUBSTANCES), 896, 896)
    assert section.amounts.dtype == np.float32
    assert np.isfinite(section.amounts).all()
    assert section.amounts.min() >= 0
    present = (section.amounts > 0.05).mean(axis=(1, 2))
    for name, fraction in zip(SUBSTANCES, present, strict=True):
        assert fraction > 1e-4, name


def test_labels_are_nuclei_of_plausible_size_full_of_chromatin(section):
    labels, counts = np.unique(section.labels[section.labels > 0], return_counts=True)
    assert len(labels) > 200
    area_um2 = counts * 0.25
    assert 15 < np.median(area_um2) < 80
    chromatin = section.amounts[CHROMATIN]
    inside, outside = chromatin[section.labels > 0], chromatin[section.labels == 0]
    assert inside.mean() > 8 * outside.mean()
    assert inside.min() > 0


def test_every_label_is_one_piece_but_for_those_another_nucleus_cuts(section):
    labels = np.unique(section.labels[section.labels > 0])
    boxes = ndimage.find_objects(section.labels)
    pieces = [ndimage.label(section.labels[boxes[v - 1]] == v)[1] for v in labels[::7]]
    assert np.mean(np.array(pieces) == 1) > 0.9


def test_a_slide_is_about_half_tissue_in_pieces_off_the_rim(wide_layout):
    tissue = wide_layout.depth_um > 0
    assert 0.5 < tissue.mean() < 0.65
    rim = np.concatenate([tissue[0], tissue[-1], tissue[:, 0], tissue[:, -1]])
    assert not rim.any()


def test_a_slide_holds_every_region(wide_layout):
    tissue = wide_layout.depth_um > 0
    fractions = {
        "glands": (wide_layout.glands.depth_um > 0)[tissue].mean(),
        "fat": (wide_layout.fat > 0.5)[tissue].mean(),
        "muscle": (wide_layout.muscle > 0.5)[tissue].mean(),
        "lymph": (wide_layout.lymph > 0.5)[tissue].mean(),
        "vessels": (wide_layout.vessels.lumen_um > 0)[tissue].mean(),
    }
    for name, fraction in fractions.items():
        assert fraction > 0.005, (name, fraction)
    assert fractions["glands"] > 0.15


def test_tiles_differ_in_composition(wide_layout):
    """Downstream clusters by composition: nuclear-rich and nuclear-poor tiles must both exist."""
    gland = (wide_layout.glands.depth_um > 0).astype(float)
    tissue = wide_layout.depth_um > 0
    shape = (16, 64, 16, 64)
    share = gland.reshape(shape).mean(axis=(1, 3))[tissue.reshape(shape).mean(axis=(1, 3)) > 0.7]
    assert share.min() < 0.05
    assert share.max() > 0.5


def test_directions_are_unit_vectors(wide_layout):
    assert np.allclose(np.hypot(wide_layout.cosine2, wide_layout.sine2), 1, atol=1e-4)


def test_a_reference_image_is_mostly_tissue_without_ink():
    rng = generator(1, "test target")
    section = build_section(rng, GRID, target_composition(GRID), artefacts=False)
    stained = section.amounts.sum(axis=0) > 0.1
    assert stained.mean() > 0.6
    assert not section.amounts[INK].any()


def test_artefacts_change_nothing_but_folds_and_ink(section):
    clean = grown(1, artefacts=False)
    assert np.array_equal(clean.labels, section.labels)
    more = section.amounts[:INK] - clean.amounts[:INK]
    assert more.min() >= 0
    assert 0.002 < (more.max(axis=0) > 0.1).mean() < 0.1
    assert (section.amounts[INK] > 0.4).mean() > 0.005


def test_structures_have_the_same_size_in_um_at_any_resolution():
    counts = {}
    for side_px, mpp in ((640, 0.5), (1280, 0.25)):
        section = grown(3, Grid(side_px, mpp), artefacts=False)
        _, areas = np.unique(section.labels[section.labels > 0], return_counts=True)
        counts[mpp] = np.median(areas) * mpp**2
    assert counts[0.25] == pytest.approx(counts[0.5], rel=0.2)


@pytest.mark.parametrize("side_px", [256, 333, 701])
def test_any_size_works(side_px):
    section = grown(1, Grid(side_px, 0.5))
    assert section.labels.shape == (side_px, side_px)
    assert section.amounts[COLLAGEN].max() > 0.3


def test_the_mixes_name_known_kinds():
    for mix in GLAND_MIXES:
        assert set(mix) <= set(GLAND_KINDS)
        assert sum(mix.values()) == pytest.approx(1)


def test_a_frame_that_holds_no_tissue_is_refused():
    assert checked_grid("demo.slide_px", 512, 0.5) == GRID_OF_512
    with pytest.raises(ConfigError, match=r"demo\.slide_px: 100 px hold no tissue; use at least"):
        checked_grid("demo.slide_px", 100, 0.5)
    for mpp in (0.05, 8.0, float("nan")):
        with pytest.raises(ConfigError, match=r"demo\.mpp: .* um per px; use 0\.2 to 1\.0\."):
            checked_grid("demo.slide_px", 512, mpp)


GRID_OF_512 = dataclasses.replace(GRID, side_px=512)
