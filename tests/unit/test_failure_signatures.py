"""Each detector on an image that was provoked to have its failure, and on one that has not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import ndimage

from phantom_pictures import he_picture
from stainfuser.stain.classical import fit_classical
from stainfuser.stain.colour_drift import colour_drift
from stainfuser.stain.failure_signatures import desaturated, disagreeing, distorted, drifting
from stainfuser.stain.seams import draw_lines, seam_score, step

SIDE_PX, TILE_PX = 768, 128


@pytest.fixture(scope="module")
def source() -> np.ndarray:
    return he_picture(SIDE_PX, "cedar")


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    return he_picture(SIDE_PX, "harbour")


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return he_picture(SIDE_PX, "harbour", seed=4)


@pytest.fixture(scope="module")
def normalized(source, target) -> np.ndarray:
    return fit_classical("reinhard", target)(source).image


def tiles(picture: np.ndarray) -> np.ndarray:
    rows = picture.reshape(SIDE_PX // TILE_PX, TILE_PX, SIDE_PX // TILE_PX, TILE_PX, 3)
    return rows.transpose(0, 2, 1, 3, 4).reshape(-1, TILE_PX, TILE_PX, 3)


def places() -> np.ndarray:
    grid = np.arange(0, SIDE_PX, TILE_PX)
    return np.array([(x, y) for y in grid for x in grid])


def greyed(picture: np.ndarray, share: float) -> np.ndarray:
    grey = picture.mean(axis=2, keepdims=True)
    return np.rint(share * grey + (1 - share) * picture).astype(np.uint8)


def shaded(picture: np.ndarray, strength: float) -> np.ndarray:
    """Give every tile a shade of its own, as normalising each by itself does."""
    shades = np.random.default_rng(0).normal(0, strength, (SIDE_PX // TILE_PX,) * 2 + (3,))
    field = shades.repeat(TILE_PX, 0).repeat(TILE_PX, 1)
    return np.clip(np.rint(picture + field), 0, 255).astype(np.uint8)


def warped(picture: np.ndarray, by_px: float) -> np.ndarray:
    """Move tissue to and fro by a few px, as a decoder does that paints it anew."""
    rng = np.random.default_rng(1)
    fields = [ndimage.gaussian_filter(rng.normal(size=picture.shape[:2]), 6) for _ in range(2)]
    grid = np.mgrid[:SIDE_PX, :SIDE_PX].astype(float)
    moved = grid + [by_px * field / field.std() for field in fields]
    channels = [
        ndimage.map_coordinates(picture[..., c].astype(float), moved, order=1) for c in range(3)
    ]
    return np.rint(np.stack(channels, axis=2)).astype(np.uint8)


def seams(source: np.ndarray, result: np.ndarray) -> float:
    borders = list(range(TILE_PX, SIDE_PX, TILE_PX))
    drawn = draw_lines(SIDE_PX, SIDE_PX, borders, 200, np.random.default_rng(0))

    def cut(image: np.ndarray, line) -> np.ndarray:
        width, height = line.size_px
        return image[line.y_px : line.y_px + height, line.x_px : line.x_px + width]

    return seam_score(
        *[
            np.array([step(cut(source, line), cut(result, line), line) for line in lines])
            for lines in drawn
        ]
    )


def test_a_faithful_result_has_none_of_them(source, truth, normalized, target):
    for result in (truth, normalized):
        before, after = tiles(source), tiles(result)
        findings = [
            desaturated(after, target),
            distorted(before, after),
            disagreeing(seams(source, result)),
            drifting(colour_drift(before, after, places())),
        ]
        assert [f.signature for f in findings if f.is_found] == []


def test_a_grey_result_is_desaturated(normalized, target):
    found = desaturated(tiles(greyed(normalized, 0.6)), target)
    assert found.is_found and found.value == pytest.approx(0.4, abs=0.12)
    assert "target" in found.cause and "confidence" in found.remedy


@pytest.mark.parametrize("provoke", ["blur", "warp", "nuclei"])
def test_changed_structure_is_distorted_morphology(source, normalized, provoke):
    if provoke == "blur":
        result = ndimage.gaussian_filter(normalized, (5, 5, 0))
    elif provoke == "warp":
        result = warped(normalized, 5.0)
    else:
        result = normalized.copy()
        rng = np.random.default_rng(2)
        for y, x in rng.integers(8, SIDE_PX - 8, (900, 2)):
            result[y - 4 : y + 4, x - 4 : x + 4] = (90, 40, 120)
    found = distorted(tiles(source), tiles(result))
    assert found.is_found and found.value > 0.5
    assert "operator" in found.remedy


def test_tiles_with_shades_of_their_own_disagree_and_drift(source, normalized):
    result = shaded(normalized, 8.0)
    seam, drift = (
        disagreeing(seams(source, result)),
        drifting(colour_drift(tiles(source), tiles(result), places())),
    )
    assert seam.is_found and seam.value > 2
    assert drift.is_found
    smooth = drifting(colour_drift(tiles(source), tiles(normalized), places()))
    assert smooth.value < 0.5 * drift.value


def test_the_drift_of_the_slide_itself_is_no_fault(source):
    # One colour map carries a source that varies to a result that varies as much.
    uneven = shaded(source, 8.0)
    result = np.rint(uneven * np.array([0.9, 0.8, 0.95])).astype(np.uint8)
    drift = colour_drift(tiles(uneven), tiles(result), places())
    assert not drifting(drift).is_found
    for part in drift.values():
        assert part.result_od == pytest.approx(part.source_od, rel=0.25)


def test_nothing_to_measure_is_no_finding_and_valid_json(source, target):
    none = tiles(source)[:0]
    glass = np.full((2, 64, 64, 3), 244, np.uint8)
    findings = [
        desaturated(glass, target),
        distorted(none, none),
        disagreeing(None),
        drifting(colour_drift(none, none, places()[:0])),
    ]
    for finding in findings:
        assert not finding.is_found
        assert json.loads(json.dumps(finding.to_json()))["value"] is None


def test_tiles_without_places_are_refused(source):
    with pytest.raises(ValueError, match="as many tiles and places"):
        colour_drift(tiles(source), tiles(source), places()[:3])
