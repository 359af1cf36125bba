"""The stages with the shipped operator head: one operator from all sampled tiles, and no more."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from normalize_files import INK, OPTIONS, Case

from phantom_pictures import he_picture, on_glass
from slide_files import tissue_picture
from stainfuser.diffusion.loading import load_pipeline
from stainfuser.errors import ConfigError, InputError
from stainfuser.files import read_json, sha256_content, sha256_file, write_json
from stainfuser.io.images import read_image, write_image
from stainfuser.io.masks import write_mask
from stainfuser.presets import HEAD_FOLDER, find_model
from stainfuser.stages.normalize_images import normalize_images
from stainfuser.stain.metrics import ciede2000, ciede2000_map
from tiny_pipeline import untrained_pipeline

COMPACT = find_model("compact")


def never(*_):
    raise AssertionError("the diffusion part was loaded")


@pytest.fixture
def head_folder(tmp_path):
    """Return a model that is nothing but the shipped head."""
    folder = tmp_path / "head only"
    shutil.copytree(COMPACT / HEAD_FOLDER, folder / HEAD_FOLDER)
    return folder


@pytest.fixture(scope="module")
def by_head(tmp_path_factory):
    """Return a slide with ink on its glass, normalised to another laboratory's stain."""
    picture = on_glass(he_picture(768, "fjord"), 1320)
    picture[INK] = (40, 60, 190)
    case = Case(tmp_path_factory.mktemp("head"), picture)
    write_image(case.folder / "my target.png", he_picture(512, "harbour", seed=5))
    record = case.run(model_dir=COMPACT, load_model=never)
    return case, record, case.pixels()


def test_the_tissue_gets_the_targets_colours(by_head):
    case, record, pixels = by_head
    inside = case.place(of_tissue=True)
    wanted = on_glass(he_picture(768, "harbour"), 1320)
    left = ciede2000_map(pixels, wanted)[inside].mean()
    before = ciede2000_map(case.picture, wanted)[inside].mean()
    assert left < 0.7 * before
    assert record["mode"] == record["mode_used"] == "operator"


def test_glass_and_ink_stay(by_head):
    case, _, pixels = by_head
    outside = case.place(of_tissue=False)
    assert outside[INK].all()
    assert (pixels == case.recompressed())[outside].all()


def test_the_record_says_how_far_to_trust_it(by_head):
    _, record, _ = by_head
    assert record["operator_from"] == "head" and record["residual"] is None
    assert 0.5 < record["confidence"] <= 1.0
    assert isinstance(record["remarks"], list)
    assert 4 <= len(record["tiles"]) <= OPTIONS["sample_tiles"]
    assert set(record["head"]) >= {"trust", "expected_de", "expected_structure", "kept_fraction"}
    assert record["head"]["expected_structure"] > 0.9


def test_bytes_depend_neither_on_threads_nor_on_the_run(tmp_path):
    case = Case(tmp_path, on_glass(he_picture(512, "fjord"), 700))
    contents = []
    for threads in (1, 3):
        case.run(model_dir=COMPACT, threads=threads, load_model=never)
        contents.append((case.output_path.read_bytes(), case.record_path.read_bytes()))
    assert contents[0] == contents[1]


PLANNED_ELSEWHERE = """
import os, signal, sys
from normalize_files import Case
from stainfuser.diffusion.slide_planning import MaskedSlide
parent, plan = os.getpid(), MaskedSlide.plan
def killed(*given):
    if os.getpid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
    return plan(*given)
if sys.argv[3] == "killed":
    MaskedSlide.plan = killed
Case.at(sys.argv[1]).run(model_dir=sys.argv[2], threads=2)
print("torch" in sys.modules)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")
@pytest.mark.parametrize("planner", ["whole", "killed"])
def test_the_process_that_plans_changes_no_byte_even_if_it_is_killed(tmp_path, planner):
    case = Case(tmp_path, on_glass(he_picture(512, "fjord"), 700))
    case.run(model_dir=COMPACT, load_model=never)
    expected = [path.read_bytes() for path in (case.output_path, case.record_path)]
    case.output_path.unlink()
    command = [sys.executable, "-c", PLANNED_ELSEWHERE, str(tmp_path), str(COMPACT), planner]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == [str(planner == "killed")]  # torch was loaded here only then
    assert [path.read_bytes() for path in (case.output_path, case.record_path)] == expected


def test_a_slide_that_is_not_he_stays_nearly_as_it_is(tmp_path, caplog):
    brightness = tissue_picture(700).mean(axis=2, keepdims=True).round().astype(np.uint8)
    case = Case(tmp_path, np.repeat(brightness, 3, axis=2))
    # The tissue mask leaves grey out already; the head does not rely on it.
    write_mask(tmp_path / "mask.png", np.ones_like(case.mask), {})
    record = case.run(model_dir=COMPACT, load_model=never)
    assert np.abs(case.pixels().astype(int) - case.recompressed()).max() <= 16
    assert any("the source does not look like H&E" in remark for remark in record["remarks"])
    assert "my slide: the source does not look like H&E" in caplog.text


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "render"}, "normalize: mode.*no diffusion part"),
        ({"operator": "model"}, "normalize: operator.*no diffusion part"),
        ({"operator": "paint"}, "normalize: operator"),
    ],
)
def test_a_head_alone_does_nothing_else(tmp_path, head_folder, options, says):
    case = Case(tmp_path, tissue_picture(300))
    with pytest.raises(ConfigError, match=says) as caught:
        case.run(model_dir=head_folder, load_model=never, **options)
    assert "\n" not in str(caught.value)
    assert not case.output_path.exists()


def test_a_model_without_a_head_has_none_to_use(tmp_path):
    case = Case(tmp_path, tissue_picture(300))
    with pytest.raises(ConfigError, match="no operator head"):
        case.run(operator="head")


def test_a_damaged_head_is_one_sentence(tmp_path, head_folder):
    path = head_folder / HEAD_FOLDER / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    case = Case(tmp_path, tissue_picture(300))
    with pytest.raises(InputError, match="does not hold an operator head"):
        case.run(model_dir=head_folder, load_model=never)


def test_the_model_may_be_asked_although_there_is_a_head(tmp_path, head_folder):
    (head_folder / "model_index.json").write_text('{"unet": ["a library", "a class"]}')
    case = Case(tmp_path, tissue_picture(700))
    record = case.run(model_dir=head_folder, operator="model")
    assert record["operator_from"] == "model" and record["residual"]["median_de"] < 1.0


def test_the_operator_is_compared_with_rendering_where_asked(tmp_path):
    case = Case(tmp_path, on_glass(he_picture(512, "fjord"), 640))
    write_image(case.folder / "my target.png", he_picture(256, "harbour", seed=5))
    assert case.run(model_dir=COMPACT, load_model=never)["fidelity"] is None
    operator, slide = case.pixels(), case.output_path.read_bytes()
    whole = {"model_dir": COMPACT, "load_model": load_pipeline}
    fidelity = case.run(**whole, fidelity_tiles=3)["fidelity"]
    assert len(case.output_path.read_bytes()) == len(slide)
    assert (case.pixels() == operator).all()
    assert 2 <= fidelity["tiles"] <= 3
    assert 0.0 < fidelity["median_de"] <= fidelity["worst_tile_de"]
    # What is told of some tiles is what the two slides show (once more through JPEG).
    case.run(**whole, mode="render")
    tissue = case.place(of_tissue=True) & (operator.min(axis=2) < 200)
    seen = np.median(ciede2000_map(case.pixels(), operator)[tissue])
    assert seen == pytest.approx(fidelity["median_de"], abs=0.5)


def test_a_head_alone_has_no_rendering_to_be_compared_with(tmp_path, head_folder):
    case = Case(tmp_path, on_glass(he_picture(300, "fjord"), 400))
    record = case.run(model_dir=head_folder, load_model=never, fidelity_tiles=2)
    assert record["fidelity"] is None


@pytest.mark.parametrize("image_operator", ["per_image", "per_folder"])
def test_plain_images(tmp_path, image_operator):
    (tmp_path / "tiles").mkdir()
    listed = []
    for number in range(3):
        picture = he_picture(256, "fjord", seed=number)
        write_image(tmp_path / "tiles" / f"{number}.png", picture)
        digest = sha256_file(tmp_path / "tiles" / f"{number}.png")
        listed.append({"name": f"{number}.png", "sha256": digest})
    record = {"sha256": sha256_content(listed), "mpp": None, "images": listed, "left_out": []}
    write_json(tmp_path / "probe.json", record)
    write_image(tmp_path / "target.png", he_picture(512, "harbour", seed=5))
    normalize_images(
        slide="tiles",
        slide_path=tmp_path / "tiles",
        json_path=tmp_path / "probe.json",
        target_path=tmp_path / "target.png",
        model_dir=COMPACT,
        output_dir=tmp_path / "out" / "tiles",
        record_path=tmp_path / "out" / "tiles.json",
        work_dir=tmp_path / "work",
        seed=1,
        load_model=never,
        **{**OPTIONS, "image_operator": image_operator},
    )
    for image in read_json(tmp_path / "out" / "tiles.json")["images"]:
        assert image["operator_from"] == "head" and image["confidence"] > 0.5
        source = read_image(tmp_path / "tiles" / image["name"])
        result = read_image(tmp_path / "out" / "tiles" / image["name"])
        wanted = he_picture(256, "harbour", seed=int(image["name"][0]))
        assert ciede2000(result, wanted) < 0.7 * ciede2000(source, wanted)


def test_the_head_is_loaded_without_the_diffusion_libraries(repository):
    lines = [
        "import sys",
        "import stainfuser.stages.normalize_slide, stainfuser.stages.normalize_images",
        "from stainfuser.diffusion.operator_mode import load_head",
        f"load_head({str(COMPACT / HEAD_FOLDER)!r})",
        "heavy = {'diffusers', 'transformers', 'accelerate', 'sklearn', 'matplotlib'}",
        "print(sorted(heavy & set(sys.modules)))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env={**os.environ, "PYTHONPATH": str(repository / "scripts")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_rendering_starts_from_what_the_head_makes_of_the_slide(tmp_path):
    from stainfuser.diffusion.loading import load_pipeline

    tiny = untrained_pipeline(seed=1, latent_channels=8, channels=(8, 16))
    model = tmp_path / "both"
    tiny.save_pretrained(model)
    index = read_json(model / "model_index.json")
    write_json(model / "model_index.json", {**index, "start": "operator_head"})
    shutil.copytree(COMPACT / HEAD_FOLDER, model / HEAD_FOLDER)
    case = Case(tmp_path, tissue_picture(260))
    options = {"mode": "render", "tile_px": 128, "overlap_px": 32, "sample_tiles": 2}
    results = []
    for block_px in (256, 512):
        options["block_px"] = block_px
        record = case.run(model_dir=model, load_model=load_pipeline, device="cpu", **options)
        results.append(case.pixels())
    assert record["mode_used"] == "render" and record["operator"] is None
    assert 0 < record["confidence"] <= 1 and record["head"]["trust"] >= 0
    assert (results[0] == results[1]).all()
