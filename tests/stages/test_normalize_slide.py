from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import openslide
import pytest
from normalize_files import INK, OPTIONS, Case, ink_picture
from scipy import ndimage

from fake_pipe import FakePipe, recolour
from slide_files import damage_tile, tissue_picture
from stainfuser.errors import ConfigError, InputError, SlideError
from stainfuser.files import read_json
from stainfuser.io.colour_profile import without_words
from stainfuser.io.tile_cache import TileCache
from stainfuser.stain.metrics import ciede2000_map


@pytest.fixture(scope="module")
def both_modes(tmp_path_factory) -> dict[str, tuple[Case, dict, np.ndarray]]:
    results = {}
    for mode in ("operator", "render"):
        case = Case(tmp_path_factory.mktemp(mode), ink_picture())
        record = case.run(mode=mode, threads=2)
        results[mode] = case, record, case.pixels()
    return results


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_tissue_gets_the_models_colours(both_modes, mode):
    case, record, pixels = both_modes[mode]
    white = record["background_rgb"]
    inside = case.place(of_tissue=True)
    wanted = recolour(case.picture, white) if mode == "operator" else recolour(case.picture)
    difference = ciede2000_map(pixels, wanted)[inside]
    unchanged = ciede2000_map(pixels, case.picture)[inside]
    assert np.median(difference) < 1.5
    assert np.median(unchanged) > 4 * np.median(difference)


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_glass_and_ink_stay(both_modes, mode):
    """They are what the source is after the same JPEG, to the last bit."""
    case, record, pixels = both_modes[mode]
    assert np.abs(np.array(record["background_rgb"]) - (243, 241, 243)).max() <= 2
    outside = case.place(of_tissue=False)
    assert outside[INK].all() and outside.mean() > 0.2
    assert (pixels == case.recompressed())[outside].all()


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_no_halo_where_the_tissue_ends(both_modes, mode):
    """Glass next to and within tissue differs less than can be seen."""
    case, _, pixels = both_modes[mode]
    # Where a JPEG block holds tissue, too, its glass rings with what the tissue is.
    away_px = ndimage.distance_transform_edt(case.picture.min(-1) > 225)
    is_glass = (away_px > 10) & ~case.place(of_tissue=False)
    assert is_glass.sum() > 10_000
    difference = ciede2000_map(pixels, case.recompressed())[is_glass]
    assert np.median(difference) < 0.1
    assert np.percentile(difference, 99) < 1.0
    shift = pixels.astype(int)[is_glass].mean(0) - case.recompressed()[is_glass].mean(0)
    assert np.abs(shift).max() < 0.2


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_what_readers_find(both_modes, mode):
    case, record, _ = both_modes[mode]
    with openslide.OpenSlide(case.output_path) as slide:
        assert slide.dimensions == (1300, 1300)
        assert slide.level_dimensions == ((1300, 1300), (325, 325))
        assert float(slide.properties["openslide.mpp-x"]) == 0.5
        assert slide.properties["openslide.objective-power"] == "20"  # from the mpp
        assert set(slide.associated_images) == {"thumbnail"}
        for name in ("config", "model", "source", "target"):
            found = slide.properties[f"aperio.StainFuser {name}_sha256"]
            assert found == record["stamp"][f"{name}_sha256"]
        assert str(case.folder) not in json.dumps(dict(slide.properties))
    assert record["mode"] == record["mode_used"] == mode
    assert record["reason"] is None
    assert record["filled_rectangles_px"] == []
    assert record["target"] == "my target"
    assert not case.work_dir.exists()
    assert str(case.folder) not in case.record_path.read_text()
    assert (record["residual"] is None) == (mode == "render")


def test_the_operator_reports_its_residual(both_modes):
    residual = both_modes["operator"][1]["residual"]
    assert residual["median_de"] < 1.0
    assert residual["on_held_out_tiles"]
    assert 4 <= residual["tiles"] <= OPTIONS["sample_tiles"]


def test_the_slide_teaches_the_model_its_colours(tmp_path):
    pipe = FakePipe()
    record = Case(tmp_path, tissue_picture(700)).run(pipe, mode="render")
    assert len(pipe.slide) == len(record["tiles"]) > 0


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_bytes_depend_neither_on_threads_nor_on_the_run(tmp_path, mode):
    case = Case(tmp_path, tissue_picture(700))
    contents = []
    for threads in (1, 3):
        case.run(mode=mode, threads=threads)
        contents.append((case.output_path.read_bytes(), case.record_path.read_bytes()))
    assert contents[0] == contents[1]


def noisy(tile: np.ndarray) -> np.ndarray:
    """A model whose brightness drifts over its tile: seams, if tiles were not blended."""
    ramp = np.linspace(-25, 25, tile.shape[1])[None, :, None]
    return np.clip(recolour(tile) + ramp, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("guard_um", [0.0, 2.0])
@pytest.mark.parametrize("mpp", [0.5, 0.27])
def test_rendering_does_not_depend_on_blocks(tmp_path, mpp, guard_um):
    case = Case(tmp_path, tissue_picture(900), mpp=mpp)
    results = []
    for block_px in (256, 768):
        case.run(FakePipe(noisy), mode="render", block_px=block_px, structure_guard_um=guard_um)
        results.append(case.pixels())
    assert (results[0] == results[1]).all()


@pytest.mark.parametrize("guard_um", [0.0, 2.0])
def test_uniform_tissue_is_rendered_without_seams(tmp_path, guard_um):
    """Tiles that disagree by 30 grey levels at their borders give no step anywhere."""
    grey = np.full((1100, 1100, 3), (200, 140, 180), np.uint8)
    case = Case(tmp_path, grey)
    case.mask[:] = True
    from stainfuser.io.masks import write_mask

    write_mask(tmp_path / "mask.png", case.mask, {})
    ramp = np.linspace(-15, 15, 256)[:, None]
    pipe = FakePipe(lambda tile: (tile + ramp).astype(np.uint8))
    case.run(pipe, mode="render", structure_guard_um=guard_um, jpeg_quality=100)
    pixels = case.pixels().astype(int)
    assert np.ptp(pixels) > 20
    for axis in (0, 1):
        assert np.abs(np.diff(pixels, axis=axis)).max() <= 3


def test_a_faithful_model_is_rendered_exactly(tmp_path):
    """Without a guard, tiles, overlap and blending add nothing of their own."""
    case = Case(tmp_path, tissue_picture(900))
    case.run(mode="render", structure_guard_um=0.0, jpeg_quality=100)
    inside = case.place(of_tissue=True) & (case.picture.max(-1) < 230)
    difference = np.abs(case.pixels().astype(int) - recolour(case.picture))[inside]
    assert difference.max() <= 4 and difference.mean() < 1


def test_finer_slides_keep_their_detail(tmp_path):
    """At 0.25 um the model sees half the resolution; detail comes from the source."""
    picture = tissue_picture(1200)
    picture[500:700:2, 500:700] = picture[500:700:2, 500:700] // 2
    case = Case(tmp_path, picture, mpp=0.25)
    case.run(mode="render", jpeg_quality=100)
    stripes = case.pixels()[500:700, 520:680].astype(int).mean((1, 2))
    assert np.abs(np.diff(stripes)).min() > 40


def moody(tile: np.ndarray) -> np.ndarray:
    """A model that no operator can stand for: its colour follows the tile's content."""
    shift = 60.0 * np.sin(7.0 * tile.astype(float).mean())
    return np.clip(recolour(tile) + shift * np.array([1, -1, 0.5]), 0, 255).astype(np.uint8)


def test_a_bad_operator_falls_back_to_rendering(tmp_path, caplog):
    case = Case(tmp_path, tissue_picture(1100))
    with caplog.at_level("WARNING", logger="stainfuser"):
        record = case.run(FakePipe(moody), residual_limit_de=3.0)
    assert (record["mode"], record["mode_used"]) == ("operator", "render")
    assert "is over the limit of 3" in record["reason"]
    assert record["residual"]["median_de"] > 3
    assert "every tile is rendered" in caplog.text
    assert np.abs(case.pixels().astype(int) - case.picture)[case.place(True)].mean() > 5


def test_a_slide_without_tissue_is_copied(tmp_path):
    case = Case(tmp_path, np.full((600, 500, 3), 240, np.uint8))
    record = case.run()
    assert (record["mode_used"], record["reason"]) == ("unchanged", "there is no tissue")
    assert np.abs(case.pixels().astype(int) - 240).max() <= 1


@pytest.mark.parametrize("size", [(40, 60), (300, 90)])
def test_slides_smaller_than_a_tile(tmp_path, size):
    picture = np.ascontiguousarray(tissue_picture(400)[100 : 100 + size[0], 150 : 150 + size[1]])
    for mode in ("operator", "render"):
        folder = tmp_path / mode
        folder.mkdir()
        case = Case(folder, picture)
        record = case.run(mode=mode)
        assert (record["height_px"], record["width_px"]) == size == case.pixels().shape[:2]


def test_coarse_slides_are_not_enlarged_without_end(tmp_path):
    record = Case(tmp_path, tissue_picture(600), mpp=4.0).run(mode="render")
    assert record["model_mpp"] == 2.0


def test_the_source_says_the_power_of_its_objective(tmp_path):
    case = Case(tmp_path, tissue_picture(400), aperio="Aperio x|AppMag = 40|MPP = 0.5")
    assert case.run()["objective_power"] == 40


def test_icc_profile_is_carried_or_dropped(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    case = Case(tmp_path, tissue_picture(400), iccprofile=profile)
    assert case.run(icc_profile="carry")["icc_profile"] == "carried"
    with openslide.OpenSlide(case.output_path) as slide:
        assert slide.color_profile.tobytes() == without_words(profile)
    assert case.run(icc_profile="drop")["icc_profile"] == "dropped"
    with openslide.OpenSlide(case.output_path) as slide:
        assert slide.color_profile is None


def test_a_corrupt_tile_fails_the_slide(tmp_path):
    case = Case(tmp_path, tissue_picture(1100))
    damage_tile(case.slide_path, 12)
    with pytest.raises(SlideError, match="cannot be decoded") as caught:
        case.run()
    assert caught.value.verdict == "corrupt"
    assert not case.output_path.exists() and not case.record_path.exists()
    assert not case.work_dir.exists()


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_a_corrupt_tile_is_filled_and_recorded(tmp_path, mode):
    case = Case(tmp_path, tissue_picture(1100))
    damage_tile(case.slide_path, 12)  # third row, third column of a 5 x 5 grid
    record = case.run(mode=mode, corrupt_tiles="fill", threads=2)
    covered = np.zeros((1100, 1100), int)
    for x, y, width, height in record["filled_rectangles_px"]:
        covered[y : y + height, x : x + width] += 1
    assert covered.max() == 1
    assert (covered[512:768, 512:768] == 1).all()
    assert covered.sum() == 256 * 256
    hole = case.pixels()[530:750, 530:750]
    assert np.abs(hole.astype(int) - np.array(record["background_rgb"])).max() <= 3


RESUME = """
import sys; sys.path[:0] = {paths!r}
import stainfuser.io.pyramid_writer as module
module.SYNC_EVERY_S = 0.0
from pathlib import Path
from normalize_files import Case
from slide_files import tissue_picture
case = Case.__new__(Case)
case.folder = Path({folder!r})
case.slide_path = case.folder / "source.tiff"
case.output_path = case.folder / "out" / "my slide.svs"
case.record_path = case.folder / "out" / "my slide.json"
case.work_dir = case.folder / "work" / "my slide"
print("ready", flush=True)
case.run(mode={mode!r}, threads=2, block_px=256)
"""


@pytest.mark.parametrize("mode", ["operator", "render"])
def test_killed_and_resumed_the_slide_is_the_same(tmp_path, mode):
    case = Case(tmp_path, tissue_picture(900))
    case.run(mode=mode, block_px=256)
    whole = case.output_path.read_bytes(), case.record_path.read_bytes()
    tests = Path(__file__).parents[1]
    paths = [str(tests.parent / "scripts"), str(tests), str(tests / "stages")]
    code = RESUME.format(paths=paths, folder=str(tmp_path), mode=mode)
    killed = 0
    for progress in (1, 3):
        case.output_path.unlink(missing_ok=True)
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        while child.poll() is None and lines_of(case.work_dir) < 4 * progress:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
    assert killed >= 1
    pipe = FakePipe()
    case.run(pipe, mode=mode, block_px=256)
    assert (case.output_path.read_bytes(), case.record_path.read_bytes()) == whole
    if mode == "operator":
        assert pipe.tiles == 0  # the fit was kept


def lines_of(work_dir: Path) -> int:
    journals = list(work_dir.glob("*/slide/journal"))
    return journals[0].read_bytes().count(b"\n") if journals else 0


def test_other_settings_do_not_use_old_work(tmp_path):
    case = Case(tmp_path, tissue_picture(500))
    stale = case.work_dir / "0123456789abcdef"
    stale.mkdir(parents=True)
    (stale / "plan.json").write_text("nonsense")
    case.run()
    assert case.output_path.exists() and not case.work_dir.exists()


def test_a_folder_without_permission_is_one_sentence(tmp_path):
    case = Case(tmp_path, tissue_picture(300))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written to"):
        case.run(output_path=tmp_path / "file" / "a.svs")


def test_a_model_that_is_none_is_one_sentence(tmp_path):
    from stainfuser.diffusion.loading import load_pipeline

    case = Case(tmp_path, tissue_picture(300))
    with pytest.raises(InputError) as caught:
        case.run(load_model=load_pipeline)
    assert str(caught.value).count("\n") == 0
    (tmp_path / "model" / "model_index.json").unlink()
    with pytest.raises(InputError, match="holds no model"):
        case.run()
    assert not case.output_path.exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mode", "paint"),
        ("overlap_px", 200),
        ("overlap_px", -1),
        ("tile_px", 10),
        ("sample_tiles", 0),
        ("jpeg_quality", 101),
        ("output_tile_px", 100),
        ("block_px", 300),
        ("corrupt_tiles", "ignore"),
        ("icc_profile", "convert"),
        ("image_operator", "both"),
        ("residual_limit_de", -1.0),
        ("structure_guard_um", -1.0),
        ("num_inference_steps", 0),
    ],
)
def test_bad_options_name_their_key(tmp_path, key, value):
    with pytest.raises(ConfigError, match=f"normalize: {key}"):
        Case(tmp_path, tissue_picture(64)).run(**{key: value})


def test_tile_cache_returns_whole_tiles_only(tmp_path):
    cache = TileCache(tmp_path / "tiles", 8)
    tile = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    assert cache.get(1, 2) is None
    cache.put(1, 2, tile)
    assert (cache.get(1, 2) == tile).all()
    path = tmp_path / "tiles" / "1_2.tile"
    content = path.read_bytes()
    for damaged in (content[:-1], b"x" + content[1:], b""):
        path.write_bytes(damaged)
        assert cache.get(1, 2) is None
    cache.put(3, 0, tile)
    cache.drop_rows_before(3)
    assert [p.name for p in (tmp_path / "tiles").iterdir()] == ["3_0.tile"]


def test_a_real_slide(shared_data, tmp_path):
    """An Aperio slide of 0.499 um with ink and folds: same size, glass untouched."""
    from stainfuser.io.slides import SlideReader

    source = shared_data / "slides" / "cmu-1-small-region.svs"
    with SlideReader(source) as reader:
        picture = reader.read(0, 700, 1200, 800)
        assert reader.mpp == 0.499
    case = Case(tmp_path, np.ascontiguousarray(picture), mpp=0.499)
    record = case.run(threads=2)
    assert record["residual"]["median_de"] < 1.0
    pixels = case.pixels()
    assert np.abs(pixels.astype(int) - picture)[case.place(of_tissue=False)].mean() < 1.5
    inside = case.place(of_tissue=True)
    difference = np.median(ciede2000_map(pixels, recolour(picture))[inside])
    assert difference < 2.5
    assert np.median(ciede2000_map(pixels, picture)[inside]) > 3 * difference
    assert read_json(case.record_path)["mpp"] == 0.499
