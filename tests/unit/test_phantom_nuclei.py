"""Single cells: their size, their labels and how they are stamped."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.seeds import generator
from stainfuser.stain.phantom_nuclei import (
    Cells,
    NucleusPainter,
    paint_discs,
    stamp,
    stamp_labels,
)
from stainfuser.stain.phantom_nucleus_kinds import NUCLEUS_KINDS


def painted(name, mpp=0.5, count=80, angle=0.0):
    rng = generator(1, name)
    cells = Cells(rng.uniform(100, 400, (count, 2)), np.full(count, angle))
    return NucleusPainter(rng, mpp).paint(NUCLEUS_KINDS[name], cells)


@pytest.mark.parametrize("name", NUCLEUS_KINDS)
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_nuclei_have_the_area_of_their_kind_at_any_resolution(name, mpp):
    kind = NUCLEUS_KINDS[name]
    _, _, bodies, _ = painted(name, mpp)
    area_um2 = (bodies > 0.5).sum(axis=(1, 2)) * mpp**2
    length, aspect = kind.length_um[0], kind.aspect[0]
    expected = np.pi * length**2 / aspect / 4
    assert np.median(area_um2) == pytest.approx(expected, rel=0.4)


@pytest.mark.parametrize("name", NUCLEUS_KINDS)
def test_patches_hold_whole_nuclei_of_plausible_chromatin(name):
    _, chromatin, bodies, cleared = painted(name)
    border = np.concatenate([bodies[:, 0], bodies[:, -1], bodies[:, :, 0], bodies[:, :, -1]])
    assert (border > 0.5).mean() < 0.002
    assert chromatin.min() >= 0
    assert chromatin.max() < 4
    assert 0 <= cleared.min() <= cleared.max() <= 1


def test_spindle_nuclei_lie_along_their_angle():
    _, _, bodies, _ = painted("fibroblast", angle=0.0)
    y, x = np.mgrid[: bodies.shape[1], : bodies.shape[2]]
    inside = bodies.mean(axis=0) > 0.2
    assert np.ptp(x[inside]) > 2 * np.ptp(y[inside])


def test_chromatin_is_textured_and_differs_from_nucleus_to_nucleus():
    _, chromatin, bodies, _ = painted("vesicular")
    inside = [c[b > 0.9] for c, b in zip(chromatin, bodies, strict=True) if (b > 0.9).sum() > 20]
    assert np.median([values.std() / values.mean() for values in inside]) > 0.12
    assert not np.allclose(chromatin[0], chromatin[1])


def test_stamps_are_cut_at_the_frame():
    frame = np.zeros((20, 20), np.float32)
    stamp(frame, np.array([[-3, -3], [17, 17], [50, 50]]), np.ones((3, 5, 5), np.float32))
    assert frame.sum() == 4 + 9
    assert frame[:2, :2].all()
    assert frame[17:, 17:].all()


def test_labels_start_again_after_the_last_uint16():
    labels = np.zeros((20, 40), np.uint16)
    bodies = np.ones((3, 5, 5), np.float32)
    corner = np.array([[0, 0], [10, 0], [12, 0]])
    following = stamp_labels(labels, corner, bodies, 65535)
    assert following == 65538
    assert labels[2, 2] == 65535
    assert labels[2, 11] == 1
    assert labels[2, 14] == 1, "the earlier nucleus stays on top"
    assert labels[2, 16] == 2


def test_discs_have_their_diameter():
    cells = Cells(np.full((50, 2), 30.0), np.zeros(50))
    _, bodies = paint_discs(generator(2), 0.5, cells, 7.0, 1.0)
    area_um2 = (bodies > 0.5).sum(axis=(1, 2)).mean() * 0.25
    assert area_um2 == pytest.approx(np.pi * 3.5**2, rel=0.1)
