"""The user's target image: any format in, RGB PNG out, or one sentence."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from slide_files import tissue_picture
from stainfuser.errors import InputError
from stainfuser.io.images import read_image
from stainfuser.stages.check_target import check_target


@pytest.fixture(scope="module")
def tissue():
    return tissue_picture(512)[140:372, 100:412]


def _check(source, tmp_path):
    check_target(source_path=source, image_path=tmp_path / "targets" / "a.png")
    return tmp_path / "targets" / "a.png"


def test_pixels_are_kept_and_bytes_repeat(tmp_path, tissue):
    Image.fromarray(tissue).save(tmp_path / "look.bmp")
    image_path = _check(tmp_path / "look.bmp", tmp_path)
    first = image_path.read_bytes()
    assert np.array_equal(read_image(image_path), tissue)
    assert _check(tmp_path / "look.bmp", tmp_path).read_bytes() == first
    with Image.open(image_path) as image:
        assert (image.mode, image.text["rule"]) == ("RGB", "check_target")
        assert str(tmp_path) not in str(image.text)


def test_other_kinds_of_images(tmp_path, tissue):
    alpha = np.full((*tissue.shape[:2], 1), 255, np.uint8)
    Image.fromarray(np.concatenate([tissue, alpha], axis=-1)).save(tmp_path / "rgba.png")
    tifffile.imwrite(tmp_path / "deep.tif", tissue.astype(np.uint16) * 257, photometric="rgb")
    tifffile.imwrite(tmp_path / "tiled.tif", tissue, tile=(64, 64), photometric="rgb")
    for name in ("rgba.png", "deep.tif", "tiled.tif"):
        assert np.array_equal(read_image(_check(tmp_path / name, tmp_path)), tissue)


def _nearly_blank():
    picture = np.full((512, 512, 3), 243, np.uint8)
    picture[:60, :60] = (190, 90, 150)
    return picture


@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.full((256, 256, 3), 245, np.uint8), "blank"),
        (np.full((256, 256, 3), (210, 120, 170), np.uint8), "blank"),
        (_nearly_blank(), "only .* % of the target image is tissue, expected at least 5 %"),
        (np.full((40, 400, 3), 150, np.uint8), "400 x 40 px"),
    ],
)
def test_unusable_pictures_are_one_sentence(tmp_path, pixels, words):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=words) as error:
        _check(tmp_path / "a.png", tmp_path)
    assert "a.png" in str(error.value)
    assert not (tmp_path / "targets").exists()


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_no_image_is_one_sentence(tmp_path, content):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png"):
        _check(tmp_path / "a.png", tmp_path)


def test_grey_noise_is_no_tissue(tmp_path):
    grey = np.random.default_rng(0).integers(120, 250, (256, 256), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="tissue"):
        _check(tmp_path / "a.png", tmp_path)


def test_real_targets(tmp_path, shared_data):
    names = ("veta/example2.tif", "torchstain/target.png", "histoqc/template4.png")
    for name in names:
        _check(shared_data / "images" / name, tmp_path)
