"""The shipped preset: found by name, without network; safe on what is not H&E."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from phantom_pictures import he_picture, on_glass
from stainfuser import StainFuserPipeline
from stainfuser.diffusion.benchmark_data import sheet_windows
from stainfuser.diffusion.operator_mode import windows_of
from stainfuser.errors import InputError
from stainfuser.io.image_collection import read_entry, read_split_table
from stainfuser.presets import HEAD_FOLDER, PRETRAINED, find_model, read_contents, shipped_presets
from stainfuser.stain.benchmark_tasks import background_change
from stainfuser.stain.metrics import ciede2000, gradient_correlation
from tiny_pipeline import untrained_pipeline

MAX_BYTES = 20e6
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def pipe():
    """Return the shipped model, loaded while any use of the network is an error."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked for")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return StainFuserPipeline.from_pretrained("compact")


@pytest.fixture(scope="module")
def tissue():
    """Return H&E-stained tissue, (256, 256, 3)."""
    return he_picture(256, "fjord")


@pytest.fixture(scope="module")
def target(pipe):
    """Return the encoded target: other tissue of another laboratory."""
    return pipe.encode_target(he_picture(384, "harbour", seed=5))


@pytest.fixture(scope="module")
def rendering_pipe(pipe):
    """Return a pipeline with the shipped head and a small, untrained diffusion part."""

    def make(start: str = "operator_head", **changes):
        tiny = untrained_pipeline()
        torch.manual_seed(0)
        torch.nn.init.normal_(tiny.unet.conv_out.weight, std=0.05)
        options = {**dict(tiny.config), **tiny.components}
        kept = {key: value for key, value in options.items() if not key.startswith("_")}
        given = {**kept, "mode": None, "start": start, "operator_head": pipe.operator_head}
        given.update(changes)
        return StainFuserPipeline(**given)

    return make


def changed(before: np.ndarray, after: np.ndarray) -> int:
    return int(np.abs(before.astype(int) - after).max())


# ---- where it is found -----------------------------------------------------------------------


def test_the_preset_is_small_and_complete():
    folder = find_model("compact")
    assert shipped_presets() == ["compact"]
    assert sum(path.stat().st_size for path in folder.rglob("*")) <= MAX_BYTES
    contents = read_contents(folder)
    assert contents.has_head and contents.mpp
    suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert suffixes <= {".json", ".safetensors", ".md"}


def test_a_preset_is_no_folder_that_happens_to_be_called_so(tmp_path, monkeypatch):
    (tmp_path / "compact").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("compact") != tmp_path / "compact"
    assert find_model("./compact") == Path("compact")
    with pytest.raises(InputError, match="holds no model"):
        StainFuserPipeline.from_pretrained("./compact")


def test_what_concerns_the_diffusion_part_is_no_error_without_one(pipe):
    loaded = StainFuserPipeline.from_pretrained("compact", torch_dtype=torch.bfloat16)
    assert loaded.to("cpu").config.mpp == pipe.config.mpp


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(InputError, match=r"compactt: .*shipped preset \(compact\)"):
        StainFuserPipeline.from_pretrained("compactt")


def test_an_installed_wheel_carries_the_model(repository, tmp_path):
    wheel = tmp_path / "wheel"
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    sources = tmp_path / "sources"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(repository / "scripts", sources / "scripts", ignore=ignored)
    shutil.copytree(repository / "envs", sources / "envs")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(repository / name, sources)
    pytest.importorskip("setuptools", "77")
    result = subprocess.run(
        [sys.executable, "-c", build, str(wheel)], cwd=sources, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import stainfuser; from stainfuser.presets import find_model, read_contents;"
        "folder = find_model('compact'); print(folder, read_contents(folder).has_head)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.split() == [
        str(tmp_path / "site/stainfuser/pretrained/compact"),
        "True",
    ]


# ---- what it does ----------------------------------------------------------------------------


def test_tissue_moves_to_the_target_and_glass_stays(pipe, tissue, target):
    picture = on_glass(tissue, 320)
    output = pipe(picture, target, output_type="np")
    result, wanted = output.images[0], on_glass(he_picture(256, "harbour"), 320)
    is_tissue = on_glass(np.zeros_like(tissue), 320).max(axis=2) == 0
    left, before = (
        ciede2000(image[32:-32, 32:-32], wanted[32:-32, 32:-32]) for image in (result, picture)
    )
    assert left < 0.7 * before
    assert changed(picture[~is_tissue], result[~is_tissue]) <= 2
    assert 0.9 < output.confidence[0] <= 1.0
    assert all("H&E" not in remark for remark in output.remarks[0])


def test_it_answers_the_same_again_alone_and_in_company(pipe, tissue, target):
    tiles = np.stack([tissue[:128, :128], tissue[128:, 128:], tissue[:128, 128:]])
    together = pipe(tiles, target, output_type="np").images
    for tile, result in zip(tiles, together, strict=True):
        assert np.array_equal(pipe(tile, target, output_type="np").images[0], result)


def test_tiles_of_a_slide_share_one_operator(pipe, tissue, target):
    tiles = [tissue[:128], tissue[128:]]
    slide = pipe.fit_slide(tiles, target)
    halves = pipe(tiles, target, output_type="np", slide=slide).images
    whole = pipe(tissue, target, output_type="np", slide=slide).images[0]
    assert np.array_equal(np.concatenate(list(halves)), whole)
    assert slide.solution.diagnostics["operator"]


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (97, 31)])
def test_every_size_comes_back_as_it_was(pipe, tissue, target, size):
    result = pipe(tissue[: size[0], : size[1]], target, output_type="pt").images
    assert result.shape == (1, 3, *size)
    assert (result >= 0).all() and (result <= 1).all()


def grey() -> np.ndarray:
    brightness = he_picture(256, "fjord").mean(axis=2, keepdims=True).round().astype(np.uint8)
    return np.repeat(brightness, 3, axis=2)


def strokes(colour: tuple[int, int, int]) -> np.ndarray:
    picture = np.full((128, 128, 3), 244, np.uint8)
    picture[::16] = picture[1::16] = picture[2::16] = colour
    return picture


DEGENERATE = {
    "blank": np.full((128, 128, 3), 243, np.uint8),
    "black": np.zeros((128, 128, 3), np.uint8),
    "grey": grey(),
    "pen": np.full((128, 128, 3), (40, 60, 190), np.uint8),
    "strokes of green pen": strokes((20, 130, 60)),
    "one pixel": np.full((1, 1, 3), 90, np.uint8),
}


@pytest.mark.parametrize("name", sorted(DEGENERATE))
def test_what_is_not_tissue_stays_nearly_as_it_is(pipe, target, name, caplog):
    picture = DEGENERATE[name]
    output = pipe(picture, target, output_type="np")
    assert changed(picture, output.images[0]) <= 8
    assert output.confidence[0] < 0.9
    assert any("the source does not look like H&E" in remark for remark in output.remarks[0])
    assert "1 of 1: the source does not look like H&E" in caplog.text


def test_a_target_that_is_not_tissue_changes_nothing(pipe, tissue):
    output = pipe(tissue, DEGENERATE["strokes of green pen"], output_type="np")
    assert changed(tissue, output.images[0]) <= 8
    assert any("the target does not look like H&E" in remark for remark in output.remarks[0])


@pytest.mark.parametrize("name", ["Izd2-29-041-w35_proSPC.jpg", "Rat-Kidney_PanCytokeratin.jpg"])
def test_immunohistochemistry_is_left_alone(pipe, target, shared_data, name):
    from stainfuser.io.images import read_image

    picture = read_image(shared_data / "images/birl" / name)
    output = pipe(picture, target, output_type="np")
    moved = np.abs(output.images[0].astype(int) - picture).mean()
    assert any("does not look like H&E" in remark for remark in output.remarks[0])
    assert moved < 5


def test_structure_and_glass_survive_the_hardest_pairs_known(pipe, shared_data):
    names = (
        ("images/histolab/very-low-nuclei-score-level0.png", "nuclei/TCGA-S4-A8RO.zip"),
        ("images/torchstain/target.png", "images/histolab/medium-nuclei-score-level0.png"),
    )
    entries = {e.file: e for e in read_split_table(PRETRAINED / "data_split.csv")}
    needed = {name: entries[name] for pair in names for name in pair}
    windows = sheet_windows({n: read_entry(shared_data, e) for n, e in needed.items()})
    for source, target in names:
        before = windows[source]
        after = pipe(before, windows[target], output_type="np", mode="operator").images[0]
        assert gradient_correlation(before, after) >= 0.955
        change = background_change(before, after)
        assert change != change or change <= 1.8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "render"}, "no diffusion part"),
        ({"mode": "paint"}, "operator, render"),
        ({"mode": "operator", "output_type": "latent"}, "no latents"),
    ],
)
def test_modes_it_does_not_have_are_refused(rendering_pipe, pipe, tissue, target, options, says):
    with pytest.raises(InputError, match=says):
        head_alone = StainFuserPipeline(None, None, None, None, operator_head=pipe.operator_head)
        head_alone(tissue, target, **options)


# ---- with a diffusion part -------------------------------------------------------------------


@pytest.mark.parametrize("start", ["operator_head", "statistics"])
def test_rendering_with_a_head(rendering_pipe, tissue, start):
    both = rendering_pipe(start)
    target = both.encode_target(he_picture(256, "harbour", seed=5))
    rendered = both(tissue, target, output_type="np", mode="render")
    by_operator = both(tissue, target, output_type="np").images
    assert both.config.mode == "operator"
    assert rendered.images.shape == by_operator.shape
    assert not np.array_equal(rendered.images, by_operator)
    again = both(tissue, target, output_type="np", mode="render", batch_size=1).images
    assert np.array_equal(rendered.images, again)
    blank = DEGENERATE["blank"]
    assert changed(blank, both(blank, target, output_type="np", mode="render").images[0]) == 0


def test_the_start_is_what_the_head_makes_of_the_source(rendering_pipe, tissue):
    both = rendering_pipe("operator_head")
    torch.nn.init.zeros_(both.unet.conv_out.weight)
    both.vae.forward = None
    target = both.encode_target(he_picture(256, "harbour", seed=5))
    mapped = both(tissue, target, output_type="pt", mode="operator").images
    latents = both(tissue, target, output_type="latent").images
    encoded = both.vae.encode(mapped * 2 - 1).latent_dist.mode() * both.vae.config.scaling_factor
    assert torch.allclose(latents, encoded, atol=1e-5)


def test_a_model_with_both_parts_is_saved_and_loaded(rendering_pipe, tissue, tmp_path):
    both = rendering_pipe("operator_head", mode="render")
    both.save_pretrained(tmp_path / "both")
    loaded = StainFuserPipeline.from_pretrained(tmp_path / "both")
    assert loaded.config.mode == "render" and loaded.config.start == "operator_head"
    for mode in ("operator", "render"):
        first = both(tissue, tissue, output_type="np", mode=mode).images
        assert np.array_equal(first, loaded(tissue, tissue, output_type="np", mode=mode).images)
    shutil.rmtree(tmp_path / "both" / HEAD_FOLDER)
    with pytest.raises(InputError, match="starts from an operator head and has none"):
        StainFuserPipeline.from_pretrained(tmp_path / "both")


def test_a_head_alone_is_saved_and_loaded(pipe, tissue, target, tmp_path):
    pipe.save_pretrained(tmp_path / "head")
    (tmp_path / "bare").mkdir()
    shutil.copytree(tmp_path / "head" / HEAD_FOLDER, tmp_path / "bare" / HEAD_FOLDER)
    expected = pipe(tissue, target, output_type="np", mode="operator").images
    for name in ("head", "bare"):
        loaded = StainFuserPipeline.from_pretrained(tmp_path / name)
        result = loaded(tissue, target, output_type="np", mode="operator").images
        assert np.array_equal(expected, result)
    shipped = find_model("compact") / HEAD_FOLDER / WEIGHTS
    saved = tmp_path / "head" / HEAD_FOLDER / WEIGHTS
    assert saved.read_bytes() == shipped.read_bytes()


# ---- damaged heads ---------------------------------------------------------------------------


@pytest.fixture
def head_folder(tmp_path):
    """Return a copy of the shipped head in a model folder of its own."""
    shutil.copytree(find_model("compact") / HEAD_FOLDER, tmp_path / "model" / HEAD_FOLDER)
    return tmp_path / "model" / HEAD_FOLDER


def refused(head_folder: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        StainFuserPipeline.from_pretrained(head_folder.parent)
    assert "\n" not in str(caught.value)


def test_a_truncated_head_is_refused(head_folder):
    path = head_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    refused(head_folder, "does not hold an operator head")


def test_a_head_that_is_not_finite_is_refused(head_folder):
    tensors = load_file(head_folder / WEIGHTS)
    name = sorted(tensors)[0]
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, head_folder / WEIGHTS)
    refused(head_folder, "not finite")


def test_a_head_of_another_architecture_is_refused(head_folder):
    config = json.loads((head_folder / "config.json").read_text())
    config["classes"] += 1
    (head_folder / "config.json").write_text(json.dumps(config))
    refused(head_folder, "does not hold an operator head")


class Bomb:
    """Pickles to code that leaves a file behind when it is run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(head_folder, tmp_path):
    (head_folder / WEIGHTS).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    refused(head_folder, "does not hold an operator head")
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_among_diffusion_weights_is_refused_and_not_run(rendering_pipe, tmp_path):
    rendering_pipe("source").save_pretrained(tmp_path / "both")
    unet = tmp_path / "both" / "unet"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(Bomb(tmp_path / "exploded"), unet / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match="weight file is missing"):
        StainFuserPipeline.from_pretrained(tmp_path / "both")
    assert not (tmp_path / "exploded").exists()


def test_an_unknown_objective_in_a_folder_is_one_sentence(rendering_pipe, tmp_path):
    rendering_pipe("source").save_pretrained(tmp_path / "both")
    path = tmp_path / "both" / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({**index, "objective": "flow"}))
    with pytest.raises(Exception, match="'flow' is unknown") as caught:
        StainFuserPipeline.from_pretrained(tmp_path / "both")
    assert "\n" not in str(caught.value)


def test_a_very_large_image_is_seen_through_windows():
    assert [window.shape for window in windows_of(np.zeros((4096, 300, 3), np.uint8))] == [
        (4096, 300, 3)
    ]
    windows = windows_of(np.zeros((20_000, 600, 3), np.uint8))
    assert len(windows) == 16
    assert {window.shape for window in windows} == {(512, 512, 3)}
