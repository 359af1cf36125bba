from __future__ import annotations

import threading

import numpy as np
import pytest
from image_set_files import make_set
from image_set_files import run_set as run
from PIL import Image

from fake_pipe import FakePipe, recolour
from slide_files import tissue_picture
from stainfuser.errors import InputError, SlideError
from stainfuser.files import exclusive_folder
from stainfuser.io.images import read_image
from stainfuser.stain.metrics import ciede2000_map


def tile(seed: int, side_px: int = 200) -> np.ndarray:
    return np.ascontiguousarray(tissue_picture(600, seed)[150 : 150 + side_px, 180 : 180 + side_px])


def test_another_run_in_the_same_work_folder_is_waited_for(tmp_path, caplog):
    make_set(tmp_path, a_png=tile(1))
    release = threading.Event()
    with exclusive_folder(tmp_path / "work"):
        thread = threading.Thread(target=lambda: (run(tmp_path), release.set()))
        thread.start()
        assert not release.wait(1.0)
        assert not (tmp_path / "out" / "my tiles").exists()
    thread.join(timeout=60)
    assert release.is_set() and (tmp_path / "out" / "my tiles" / "a.png").exists()
    assert "another process works here" in caplog.text


@pytest.mark.parametrize("mode", ["operator", "render"])
@pytest.mark.parametrize("image_operator", ["per_image", "per_folder"])
def test_every_image_under_its_name_and_size(tmp_path, mode, image_operator):
    images = make_set(
        tmp_path,
        a_png=tile(1),
        b_jpg=tile(2, 150),
        c_tif=tissue_picture(700, 3)[:600],
        **{'d "é"_png': tile(4, 30)},
    )
    record = run(tmp_path, mode=mode, image_operator=image_operator)
    assert [image["name"] for image in record["images"]] == sorted(p.name for p in images.iterdir())
    for path in images.iterdir():
        source, result = read_image(path), read_image(tmp_path / "out" / "my tiles" / path.name)
        assert result.shape == source.shape
        is_tissue = source.min(-1) < 190
        difference = np.median(ciede2000_map(result, recolour(source))[is_tissue])
        assert difference < 2.0
        assert np.median(ciede2000_map(result, source)[is_tissue]) > 2 * difference
        with (
            Image.open(tmp_path / "out" / "my tiles" / path.name) as image,
            Image.open(path) as was,
        ):
            assert image.format == was.format
    assert not (tmp_path / "work").exists()
    assert {image["mode_used"] for image in record["images"]} == {mode}
    assert record["stamp"]["rule"] == "normalize_images"
    assert str(tmp_path) not in (tmp_path / "out" / "my tiles.json").read_text()


def test_one_operator_for_a_folder_is_one_colour_map(tmp_path):
    """The model drifts from image to image; per folder, equal colours stay equal."""

    def moody(picture: np.ndarray) -> np.ndarray:
        shift = 20 * np.sin(7.0 * picture.astype(float).mean())
        return np.clip(recolour(picture) + shift, 0, 255).astype(np.uint8)

    make_set(tmp_path, a_png=tile(1), b_png=tile(2), c_png=tile(3))
    colours = {}
    for choice in ("per_image", "per_folder"):
        run(tmp_path, FakePipe(moody), image_operator=choice, residual_limit_de=50.0)
        results = [read_image(p) for p in sorted((tmp_path / "out" / "my tiles").iterdir())]
        is_stroma = [np.abs(tile(i) - (226.0, 160.0, 198.0)).max(-1) < 3 for i in (1, 2, 3)]
        means = [rgb[place].mean(0) for rgb, place in zip(results, is_stroma, strict=True)]
        colours[choice] = np.ptp(means, axis=0).max()
    assert colours["per_folder"] < 1.0 < 5.0 < colours["per_image"]


@pytest.mark.parametrize("image_operator", ["per_image", "per_folder"])
def test_a_bad_image_is_left_out_and_the_rest_go_on(tmp_path, image_operator):
    images = make_set(tmp_path, a_png=tile(1), b_png=tile(2), c_png=tile(3))
    content = (images / "b.png").read_bytes()
    (images / "b.png").write_bytes(content[: len(content) // 2])
    record = run(tmp_path, image_operator=image_operator)
    assert [image["name"] for image in record["images"]] == ["a.png", "c.png"]
    assert [image["name"] for image in record["left_out"]] == ["b.png"]
    assert "damaged" in record["left_out"][0]["reason"]
    names = sorted(path.name for path in (tmp_path / "out" / "my tiles").iterdir())
    assert names == ["a.png", "c.png"]


@pytest.mark.parametrize("image_operator", ["per_image", "per_folder"])
def test_no_readable_image_fails_the_set(tmp_path, image_operator):
    images = make_set(tmp_path, a_png=tile(1))
    (images / "a.png").write_bytes(b"")
    with pytest.raises(SlideError, match="none of its images"):
        run(tmp_path, image_operator=image_operator)
    assert not (tmp_path / "out" / "my tiles").exists()


def test_glass_and_white_stay(tmp_path):
    picture = tile(1)
    picture[:80] = (243, 241, 243)
    picture[:20] = 255
    make_set(tmp_path, a_png=picture)
    for mode in ("operator", "render"):
        run(tmp_path, mode=mode)
        result = read_image(tmp_path / "out" / "my tiles" / "a.png")
        assert np.abs(result[:80].astype(int) - picture[:80]).max() <= 1


def test_an_interrupted_set_goes_on(tmp_path):
    make_set(tmp_path, a_png=tile(1), b_png=tile(2), c_png=tile(3))
    run(tmp_path)
    whole = {p.name: p.read_bytes() for p in (tmp_path / "out" / "my tiles").iterdir()}

    class Killed(BaseException):
        pass

    pipe = FakePipe()

    def dies(picture: np.ndarray) -> np.ndarray:
        if pipe.tiles > 2:
            raise Killed
        return recolour(picture)

    pipe.change = dies
    with pytest.raises(Killed):
        run(tmp_path, pipe)
    pipe = FakePipe()
    run(tmp_path, pipe)
    assert pipe.tiles == 1
    assert whole == {p.name: p.read_bytes() for p in (tmp_path / "out" / "my tiles").iterdir()}


def test_a_single_image_file_is_a_set(tmp_path):
    images = make_set(tmp_path, a_png=tile(1))
    run(tmp_path, slide_path=images / "a.png")
    assert [p.name for p in (tmp_path / "out" / "my tiles").iterdir()] == ["a.png"]


def test_a_folder_without_permission_is_one_sentence(tmp_path):
    make_set(tmp_path, a_png=tile(1))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        run(tmp_path, output_dir=tmp_path / "file" / "tiles")
