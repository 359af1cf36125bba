"""Plain images: whatever comes in is RGB, or one sentence."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.io import images
from stainfuser.io.images import read_image, write_image


@pytest.fixture()
def rgb():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_formats_keep_every_pixel(tmp_path, rgb, suffix):
    write_image(tmp_path / f"a{suffix}", rgb)
    assert np.array_equal(read_image(tmp_path / f"a{suffix}"), rgb)


def test_jpeg_keeps_full_colour_resolution(tmp_path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = (220, 40, 120)
    stripes[:, 1::2] = (60, 90, 200)
    write_image(tmp_path / "a.jpg", stripes, quality=95)
    # 4:2:0 would average the chroma of neighbouring columns: an error of about 60.
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - stripes).mean() < 8


def test_text_is_carried_and_bytes_repeat(tmp_path, rgb):
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, rgb, text={"software": "stainfuser", "slide": "façade"})
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"software": "stainfuser", "slide": "façade"}
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_transparency_is_composited_on_white(tmp_path):
    rgba = np.zeros((4, 4, 4), np.uint8)
    rgba[:2] = (10, 20, 30, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png")
    assert (pixels[:2] == (10, 20, 30)).all()
    assert (pixels[2:] == 255).all()


def test_grey_palette_and_16_bit_become_rgb(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey).convert("RGB").quantize(8).save(tmp_path / "palette.png")
    deep = grey.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    tifffile.imwrite(tmp_path / "deep.tif", np.stack([deep] * 3, -1), photometric="rgb")
    planar = np.stack([deep] * 3)
    tifffile.imwrite(tmp_path / "planar.tif", planar, photometric="rgb", planarconfig="separate")
    for name in ("grey.png", "deep.png", "deep.tif", "planar.tif"):
        pixels = read_image(tmp_path / name)
        assert np.array_equal(pixels, np.stack([grey] * 3, -1)), name
    assert read_image(tmp_path / "palette.png").shape == (16, 16, 3)


def _write_truncated(path, rgb):
    write_image(path, rgb)
    path.write_bytes(path.read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path, rgb: None, "no such file"),
        (lambda path, rgb: path.write_bytes(b""), "empty"),
        (lambda path, rgb: path.write_text("not an image"), "it is none"),
        (lambda path, rgb: path.mkdir(), "folder"),
        (_write_truncated, "damaged"),
    ],
)
def test_what_is_no_image_is_one_sentence(tmp_path, rgb, make, words):
    path = tmp_path / "a.png"
    make(path, rgb)
    with pytest.raises(InputError, match=words) as error:
        read_image(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("shape", [(8, 8), (5, 8, 8)])
def test_floating_point_and_stacks_are_refused(tmp_path, shape):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.float32))
    with pytest.raises(InputError):
        read_image(tmp_path / "a.tif")


def test_huge_images_are_refused_before_decoding(tmp_path, rgb, monkeypatch):
    write_image(tmp_path / "a.png", rgb)
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="60 x 40 px"):
        read_image(tmp_path / "a.png")


def test_a_failed_write_leaves_the_old_file(tmp_path, rgb):
    write_image(tmp_path / "a.png", rgb)
    before = (tmp_path / "a.png").read_bytes()
    with pytest.raises(TypeError):
        write_image(tmp_path / "a.png", rgb.astype(np.complex64))
    assert (tmp_path / "a.png").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
