"""Training as a stage: files, resuming after a kill to the byte, few and bad inputs."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from stainfuser.diffusion import pair_sampler
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.validation import better_arm, describe_gain
from stainfuser.errors import ConfigError, InputError, TrainingError
from stainfuser.nn.class_matcher import OperatorHeadParams
from stainfuser.nn.operator_head import OperatorHead
from stainfuser.stages import train_normalizer as stage

OPTIONS = dict(
    preset="compact",
    base_model=None,
    trained_unet_parts=["encoder_hid_proj", "up_blocks", "conv_norm_out", "conv_out"],
    objective="bridge",
    start="statistics",
    context_tokens=8,
    latent_patch_px=4,
    latent_channels=8,
    channels=[16, 16],
    decoder_channels=8,
    autoencoder_steps=4,
    autoencoder_learning_rate=0.002,
    steps=6,
    batch_size=2,
    crop_px=16,
    half_resolution_probability=0.0,
    learning_rate=0.002,
    warmup_steps=2,
    weight_decay=0.0001,
    ema_decay=0.9,
    max_gradient_norm=1.0,
    gradient_accumulation=1,
    mixed_precision="no",
    stain_augmentation_probability=0.5,
    stain_augmentation_strength=1.0,
    held_out_source_fraction=0.2,
    held_out_target_fraction=0.2,
    checkpoint_steps=2,
    validation_pairs=2,
    initial_model=None,
    operator_head=None,
    stored_examples=0,
    finetune_steps=0,
    finetune_learning_rate=0.0005,
)


@pytest.fixture(autouse=True)
def forget_precision():
    """Let every test choose its precision; accelerate keeps the first one of a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def write_pairs(path: Path, sources: int = 5, targets: int = 4, side: int = 32, **replaced) -> Path:
    rng = np.random.default_rng(0)
    small = rng.integers(90, 230, (sources, side // 4, side // 4, 3))
    source = small.repeat(4, axis=1).repeat(4, axis=2).astype(np.uint8)
    stylized = np.stack([np.roll(source, shift, axis=-1) for shift in range(targets)])
    datasets = dict(
        source=source,
        target=stylized[:, 0],
        stylized=stylized,
        planned=np.ones((targets, sources), bool),
        source_id=[f"s{index}" for index in range(sources)],
        target_id=[f"t{index}" for index in range(targets)],
    )
    with h5py.File(path, "w") as pairs:
        for name, values in {**datasets, **replaced}.items():
            if values is not None:
                pairs[name] = values
        pairs.attrs["mpp"] = 0.5
    return path


def train(folder: Path, pairs: Path, *, pictures: bool = False, **changes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr(stage, "draw_samples", lambda path, *_: path.touch())
            patch.setattr(stage, "draw_curves", lambda path, *_: path.touch())
        run_stage(folder, pairs, **changes)


def run_stage(folder: Path, pairs: Path, **changes) -> None:
    stage.train_normalizer(
        pairs_path=pairs,
        model_dir=folder / "model",
        losses_path=folder / "losses.csv",
        samples_path=folder / "samples.png",
        curves_path=folder / "curves.png",
        validation_path=folder / "validation.json",
        work_dir=folder / "work",
        seed=1,
        threads=1,
        device="cpu",
        **{**OPTIONS, **changes},
    )


def products(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and "work" not in path.parts]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(files)
    }


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5")


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(folder, pairs, pictures=True)
    return folder


def test_losses_of_every_step_are_written(trained):
    rows = list(csv.DictReader((trained / "losses.csv").open()))
    steps = {
        phase: [int(row["step"]) for row in rows if row["phase"] == phase]
        for phase in ("autoencoder", "diffusion", "diffusion validation")
    }
    assert steps == {
        "autoencoder": [1, 2, 3, 4],
        "diffusion": [1, 2, 3, 4, 5, 6],
        "diffusion validation": [0, 2, 4, 6],
    }
    assert all(float(row["loss"]) > 0 for row in rows)


def test_the_model_knows_its_resolution_and_makes_images(trained):
    pipeline = StainFuserPipeline.from_pretrained(trained / "model")
    assert pipeline.config.mpp == 0.5
    image = np.full((20, 20, 3), 200, np.uint8)
    assert pipeline(image, image, output_type="np").images.shape == (1, 20, 20, 3)


def test_held_out_tissue_and_stain_are_measured_apart_and_together(trained):
    content = json.loads((trained / "validation.json").read_text())
    assert set(content["parts"]) == {
        "train",
        "held_out_sources",
        "held_out_targets",
        "held_out_both",
    }
    for part in content["parts"].values():
        assert part["n"] >= 1
        for arm in ("identity", "autoencoder", "untrained", "trained"):
            assert set(part[arm]) == {"ciede2000", "psnr_db", "gradient_correlation"}


def test_new_tissue_is_rendered_better_than_before_training(tmp_path):
    path = write_pairs(tmp_path / "pairs.h5", sources=12, targets=1)
    with h5py.File(path, "r+") as pairs:
        darker = (pairs["source"][:] * np.array([0.8, 0.5, 0.7])).astype(np.uint8)
        pairs["stylized"][0] = darker
        pairs["target"][0] = darker[0]
    train(
        tmp_path,
        path,
        start="source",
        steps=120,
        batch_size=8,
        learning_rate=0.004,
        warmup_steps=10,
        held_out_target_fraction=0.0,
        stain_augmentation_probability=0.0,
        checkpoint_steps=200,
    )
    part = json.loads((tmp_path / "validation.json").read_text())["parts"]["held_out_sources"]
    assert part["trained"]["ciede2000"] < 0.7 * part["untrained"]["ciede2000"]
    assert part["trained"]["psnr_db"] > part["untrained"]["psnr_db"] + 2.0


def test_no_product_carries_a_path_or_a_name_of_the_machine(trained):
    for path in [*trained.glob("model/**/*.json"), trained / "validation.json"]:
        assert str(trained) not in path.read_text()


@pytest.mark.parametrize("death", [("autoencoder", 3), ("diffusion", 1), ("diffusion", 5)])
def test_a_killed_run_continues_to_the_same_bytes(trained, pairs, tmp_path, monkeypatch, death):
    from stainfuser.diffusion import optimization

    plain = optimization._step

    def dying(prepared, loss_of, step, rate, optimizer, accelerator, parameters):
        if (parameters.phase, step) == death:
            raise KeyboardInterrupt
        return plain(prepared, loss_of, step, rate, optimizer, accelerator, parameters)

    monkeypatch.setattr(optimization, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, pairs, pictures=True)
    monkeypatch.setattr(optimization, "_step", plain)
    train(tmp_path, pairs, pictures=True)
    assert products(tmp_path) == products(trained)


def test_another_configuration_starts_anew(pairs, tmp_path):
    train(tmp_path, pairs)
    train(tmp_path, pairs, learning_rate=0.001)
    assert len(list((tmp_path / "work").iterdir())) == 1
    fresh = tmp_path / "fresh"
    train(fresh, pairs, learning_rate=0.001)
    names = ("losses.csv", "validation.json")
    assert [(tmp_path / name).read_bytes() for name in names] == [
        (fresh / name).read_bytes() for name in names
    ]


@pytest.mark.parametrize(("sources", "targets"), [(1, 1), (2, 1), (1, 3)])
def test_few_pairs_train_with_a_word(tmp_path, caplog, sources, targets):
    path = write_pairs(tmp_path / "pairs.h5", sources, targets)
    with caplog.at_level("INFO", "stainfuser"):
        train(tmp_path, path)
    assert "train" in json.loads((tmp_path / "validation.json").read_text())["parts"]
    if sources < 3 and targets < 3:
        assert "too few pairs" in caplog.text


def test_pairs_smaller_than_a_crop_are_used_whole(tmp_path, caplog):
    with caplog.at_level("INFO", "stainfuser"):
        train(tmp_path, write_pairs(tmp_path / "pairs.h5", side=20), crop_px=128)
    assert "crops of 16 px" in caplog.text


def test_only_planned_pairs_are_read(tmp_path):
    planned = np.zeros((4, 5), bool)
    planned[:, 2] = planned[1] = True
    stylized = np.zeros((4, 5, 32, 32, 3), np.uint8)
    stylized[planned] = 200
    seen = []
    plain = pair_sampler.PairImages.stylized

    def recording(self, rows):
        images = plain(self, rows)
        seen.extend(int(image.min()) for image in images)
        return images

    pair_sampler.PairImages.stylized = recording
    try:
        train(tmp_path, write_pairs(tmp_path / "pairs.h5", planned=planned, stylized=stylized))
    finally:
        pair_sampler.PairImages.stylized = plain
    assert set(seen) == {200}


def test_other_objectives_train(pairs, tmp_path):
    few = dict(context_tokens=None, steps=2, validation_pairs=1)
    for objective in ("epsilon", "v_zero_snr"):
        train(tmp_path / objective, pairs, objective=objective, **few)
        assert (tmp_path / objective / "model" / "model_index.json").exists()


def test_mixed_precision_trains(pairs, tmp_path):
    train(tmp_path, pairs, mixed_precision="bf16", steps=2)
    pipeline = StainFuserPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.unet.dtype == torch.float32


@pytest.fixture(scope="module")
def head_model(tmp_path_factory):
    """Return a model folder that holds nothing but a small operator head."""
    folder = tmp_path_factory.mktemp("head")
    torch.manual_seed(0)
    head = OperatorHead(OperatorHeadParams(6, (8, 8, 16), 8, 16, 1, 2, 64))
    head.save_pretrained(folder / "operator_head")
    return folder


def test_examples_from_an_operator_head_are_stored_and_resumed(pairs, head_model, tmp_path):
    options = dict(
        start="operator_head",
        operator_head=str(head_model),
        stored_examples=5,
        finetune_steps=2,
        steps=2,
    )
    train(tmp_path / "whole", pairs, **options)
    plain = pair_sampler.PairSampler.draw
    calls = iter(range(1000))

    def dying(self, step, stream=0):
        if next(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, step, stream)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pair_sampler.PairSampler, "draw", dying)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", pairs, **options)
    train(tmp_path / "killed", pairs, **options)
    assert products(tmp_path / "killed") == products(tmp_path / "whole")
    pipeline = StainFuserPipeline.from_pretrained(tmp_path / "whole" / "model")
    assert pipeline.operator_head is not None
    assert pipeline.config.start == "operator_head"


def test_going_on_from_a_model_keeps_what_it_is(pairs, trained, tmp_path):
    model = trained / "model"
    train(tmp_path, pairs, initial_model=str(model), channels=[8] * 4, steps=4)
    content = json.loads((tmp_path / "validation.json").read_text())
    assert content["saved"] == better_arm(content["parts"])
    for path in tmp_path.rglob("*.json"):
        assert str(model) not in path.read_text()
    before, after = (
        load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
        for folder in (model, tmp_path / "model")
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    losses = (tmp_path / "losses.csv").read_text()
    assert "autoencoder" not in losses and "diffusion validation" in losses
    kept = {"trained": "the trained model is saved", "untrained": "began with is saved"}
    assert kept[content["saved"]] in content["outcome"]


def test_a_model_can_be_tuned_on_pixels_alone(pairs, trained, tmp_path):
    train(tmp_path, pairs, initial_model=str(trained / "model"), steps=0, finetune_steps=2)
    with (tmp_path / "losses.csv").open() as handle:
        assert {row["phase"].split()[0] for row in csv.DictReader(handle)} == {"finetune"}


def test_training_that_makes_a_model_worse_saves_the_model_it_began_with(
    pairs, trained, tmp_path, monkeypatch
):
    monkeypatch.setattr(stage, "better_arm", lambda scores: "untrained")
    train(tmp_path, pairs, initial_model=str(trained / "model"), steps=2, learning_rate=0.02)
    assert json.loads((tmp_path / "validation.json").read_text())["saved"] == "untrained"
    name = "unet/diffusion_pytorch_model.safetensors"
    before, after = (load_file(f / "model" / name) for f in (trained, tmp_path))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_model_without_a_diffusion_part_cannot_be_trained(pairs, head_model, tmp_path):
    with pytest.raises(ConfigError, match="no diffusion part"):
        train(tmp_path, pairs, initial_model=str(head_model))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"objective": "flow"}, "train.objective: 'flow' is unknown"),
        ({"preset": "huge"}, "train.preset: 'huge' is unknown"),
        ({"start": "noise"}, "train.start: 'noise' is unknown"),
        ({"mixed_precision": "fp8"}, "train.mixed_precision"),
        ({"steps": 0}, "train.steps"),
        ({"channels": [12, 16]}, "train.channels"),
        ({"channels": [16]}, "train.channels"),
        ({"latent_channels": 49}, "train.latent_channels"),
        ({"held_out_source_fraction": 1.0}, "train.held_out_source_fraction"),
        ({"finetune_steps": -1}, "train.finetune_steps"),
        ({"objective": "epsilon", "finetune_steps": 2}, "train.finetune_steps"),
        ({"start": "operator_head"}, "train.start: operator_head needs an operator head"),
    ],
)
def test_bad_options_are_named(pairs, tmp_path, changes, says):
    with pytest.raises(ConfigError) as caught:
        train(tmp_path, pairs, **changes)
    assert says in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_a_file_without_pairs_is_refused(tmp_path):
    with pytest.raises(InputError, match="not an intact file of pairs"):
        train(tmp_path, write_pairs(tmp_path / "pairs.h5", planned=None))
    (tmp_path / "broken.h5").write_bytes(b"not HDF5")
    for name, says in (("broken.h5", "not an intact"), ("absent.h5", "no such file")):
        with pytest.raises(InputError, match=says):
            train(tmp_path, tmp_path / name)


def test_images_below_the_networks_smallest_are_refused(tmp_path):
    with pytest.raises(InputError, match="smaller than the network's 8 px"):
        train(tmp_path, write_pairs(tmp_path / "pairs.h5", side=4))


def test_a_learning_rate_that_explodes_stops_the_run(pairs, tmp_path):
    with pytest.raises(TrainingError, match="finite"):
        train(tmp_path, pairs, learning_rate=1e30, steps=20)
    assert not (tmp_path / "model").exists()


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory):
    """Return a folder with the layout of Stable Diffusion and a thousandth of its weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        block_out_channels=(8, 8, 16, 16),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
        use_linear_projection=True,
    ).save_pretrained(folder / "unet")
    return folder


SD21 = dict(
    preset="sd21",
    objective="epsilon",
    context_tokens=None,
    crop_px=64,
    steps=2,
    half_resolution_probability=0.5,
    held_out_source_fraction=0.0,
    held_out_target_fraction=0.0,
    validation_pairs=1,
)


def test_sd21_trains_what_the_paper_trains(stable_diffusion, tmp_path):
    train(
        tmp_path,
        write_pairs(tmp_path / "pairs.h5", side=128),
        base_model=str(stable_diffusion),
        **SD21,
    )
    pipeline = StainFuserPipeline.from_pretrained(tmp_path / "model")
    assert (pipeline.config.preset, pipeline.config.target_range) == ("sd21", "zero_one")
    before = load_file(stable_diffusion / "unet" / "diffusion_pytorch_model.safetensors")
    after = pipeline.unet.state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"up_blocks", "conv_norm_out", "conv_out"}
    vae = load_file(stable_diffusion / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(vae[key], value) for key, value in pipeline.vae.state_dict().items())
    assert any(block.weight.any() for block in pipeline.controlnet.controlnet_down_blocks)
    for path in (tmp_path / "model").rglob("*.json"):
        assert str(stable_diffusion) not in path.read_text()


def test_latents_of_stable_diffusion_are_stored(stable_diffusion, tmp_path):
    larger = write_pairs(tmp_path / "pairs.h5", side=64)
    train(tmp_path, larger, base_model=str(stable_diffusion), **{**SD21, "stored_examples": 3})
    with h5py.File(next(tmp_path.rglob("examples.h5")), "r") as stored:
        assert stored.attrs["finished"] == 3
        assert stored["clean"].shape[1:] == stored["first"].shape[1:] == (4, 8, 8)
        assert stored["source"].dtype == np.uint8


def test_sd21_without_a_base_is_refused(pairs, stable_diffusion, tmp_path):
    larger = write_pairs(tmp_path / "pairs.h5", side=64)
    with pytest.raises(ConfigError, match=r"train\.base_model"):
        train(tmp_path, larger, base_model=None, **SD21)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no usable vae"):
        train(tmp_path, larger, base_model=str(tmp_path / "empty"), **SD21)
    with pytest.raises(ConfigError, match="no part 'decoder'"):
        train(
            tmp_path,
            larger,
            base_model=str(stable_diffusion),
            **{**SD21, "trained_unet_parts": ["decoder"]},
        )
    with pytest.raises(InputError, match="smaller than the network's 64 px"):
        train(tmp_path, pairs, base_model=str(stable_diffusion), **SD21)


def test_the_better_of_two_models_is_told_by_what_was_held_out():
    def part(n, untrained, trained):
        return {"n": n, "untrained": {"ciede2000": untrained}, "trained": {"ciede2000": trained}}

    parts = {"train": part(9, 5.0, 1.0), "held_out_sources": part(1, 3.0, 4.0)}
    assert better_arm(parts) == "untrained"
    assert better_arm({**parts, "held_out_both": part(2, 3.0, 2.0)}) == "trained"
    assert better_arm({"train": parts["train"]}) == "trained"
    assert describe_gain(parts, "untrained") == (
        "training did not improve the model (mean CIEDE2000 of 1 held-out pairs 3.00 before, "
        "4.00 after); the model it began with is saved"
    )
    assert "nothing was held out" in describe_gain({"train": parts["train"]}, "trained")
