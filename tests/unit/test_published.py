"""The published layout without the published files: what fits, and what is refused."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.published import SD21_BASE, save_published
from stainfuser.errors import InputError

UNET = dict(
    sample_size=8,
    block_out_channels=(8, 16),
    down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    layers_per_block=1,
    attention_head_dim=2,
    cross_attention_dim=16,
    norm_num_groups=4,
    use_linear_projection=True,
)
VAE = dict(
    block_out_channels=(8, 8),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    norm_num_groups=4,
)
CONFIG = {"unet": UNET, "vae": VAE, "scheduler": SD21_BASE["scheduler"]}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "checkpoint.safetensors"
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET, encoder_hid_dim=4, encoder_hid_dim_type="text_proj")
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8))
    save_published(path, vae=AutoencoderKL(**VAE), unet=unet, controlnet=controlnet)
    return path


def refused(path, says, config=CONFIG):
    with pytest.raises(InputError, match=says) as caught:
        StainFuserPipeline.from_single_file(path, config)
    assert "\n" not in str(caught.value)


def test_the_configuration_can_be_a_file(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    pipeline = StainFuserPipeline.from_single_file(checkpoint, tmp_path / "config.json")
    assert pipeline.config.preset == "sd21"
    assert pipeline.controlnet.config.conditioning_embedding_out_channels == (4, 8)
    assert pipeline.scheduler.config.steps_offset == 1


def test_names_are_the_published_ones(checkpoint):
    names = set(load_file(checkpoint))
    assert {name.split(".")[0] for name in names} == {"encoder", "conditioner", "noise_predictor"}
    assert "noise_predictor.encoder_projector.weight" in names
    assert not any("encoder_hid_proj" in name for name in names)


def test_missing_and_truncated_files_are_refused(checkpoint, tmp_path):
    refused(tmp_path / "absent.safetensors", "no such checkpoint")
    whole = checkpoint.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.safetensors", "damaged")
    torch.save(load_file(checkpoint), tmp_path / "cut.pth")
    whole = (tmp_path / "cut.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.pth", "damaged")


class Harmful:
    def __reduce__(self):
        return os.mkdir, (os.environ["HARM"],)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HARM", str(tmp_path / "harm"))
    torch.save({"state_dict": Harmful()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    for name in ("a.pth", "b.pth"):
        refused(tmp_path / name, "more than tensors")
    assert not (tmp_path / "harm").exists()


def test_another_architecture_is_refused(checkpoint):
    wider = {**CONFIG, "unet": {**UNET, "cross_attention_dim": 24}}
    refused(checkpoint, "does not fit the configuration of its", wider)
    refused(checkpoint, "lacks scheduler", {"unet": UNET, "vae": VAE})


def test_another_checkpoint_is_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    refused(tmp_path / "other.safetensors", r"no tensor named encoder\.")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    refused(tmp_path / "list.pth", "not a mapping")


def test_a_configuration_that_is_no_json_is_refused(checkpoint, tmp_path):
    (tmp_path / "config.json").write_text("unet:")
    refused(checkpoint, "cannot be read as JSON", tmp_path / "config.json")


def test_weights_that_are_not_finite_are_refused(checkpoint, tmp_path):
    tensors = load_file(checkpoint)
    tensors["noise_predictor.conv_in.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "nan.safetensors")
    refused(tmp_path / "nan.safetensors", "conv_in.bias is not finite")


def test_the_compact_model_has_no_published_layout(tmp_path):
    from test_pipeline import tiny_pipeline

    with pytest.raises(InputError, match="no published layout"):
        tiny_pipeline().save_single_file(tmp_path / "x.safetensors")


def test_sd21_base_is_the_published_architecture():
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(dict(SD21_BASE["unet"]))
        vae = AutoencoderKL.from_config(dict(SD21_BASE["vae"]))
    count = {name: sum(p.numel() for p in m.parameters()) for name, m in (("u", unet), ("v", vae))}
    assert count == {"u": 865_910_724, "v": 83_653_863}
