"""Fixed stain vectors: those of scikit-image, amounts matched, structure and failures."""

from __future__ import annotations

import numpy as np
import pytest

from slide_files import tissue_picture
from stainfuser.stain.classical import fit_classical
from stainfuser.stain.ruifrok import RuifrokNormalizer, combine, separate


def test_amounts_are_those_of_scikit_image():
    from skimage.color import hed2rgb, rgb2hed

    picture = tissue_picture(64, seed=1)
    picture[picture == 0] = 1
    unit = -np.log(1e-6)  # scikit-image measures density in powers of 1e-6
    amounts = separate(picture)
    assert np.allclose(amounts.reshape(64, 64, 3) / unit, rgb2hed(picture), atol=1e-6)
    back = 255 * hed2rgb(rgb2hed(picture))
    assert np.abs(combine(amounts).reshape(picture.shape) - back).max() < 0.51


def test_amounts_are_matched():
    source, target = tissue_picture(128, seed=1), tissue_picture(128, seed=2) // 2 + 40
    result = RuifrokNormalizer(target).normalize(source)
    strong = [np.percentile(separate(image)[:, :2], 99, axis=0) for image in (result, target)]
    assert np.allclose(*strong, rtol=0.08)


def test_a_target_gets_itself_and_glass_comes_back():
    picture = tissue_picture(96, seed=3)
    normalize = fit_classical("ruifrok", picture)
    same = combine(separate(picture)).reshape(picture.shape).astype(int)
    assert np.abs(normalize(picture).image - same).max() <= 1
    glass = np.full((32, 32, 3), 244, np.uint8)
    assert normalize(glass).is_fallback and np.array_equal(normalize(glass).image, glass)


def test_an_absent_stain_is_an_error():
    white = np.full((16, 16, 3), 255, np.uint8)
    with pytest.raises(ValueError, match="absent"):
        RuifrokNormalizer(tissue_picture(32)).normalize(white)
