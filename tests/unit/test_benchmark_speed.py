import json

import numpy as np
import pytest
import torch

from stainfuser.diffusion.benchmark_gpu import NOT_MEASURED, gpu_rows, not_measured
from stainfuser.diffusion.benchmark_speed import (
    ANEW_DATA,
    SD21_ARM,
    SPEED_DATA,
    model_speed,
    random_sd21,
    sd21_speed,
    speed_tile,
    times_faster,
)
from stainfuser.diffusion.published import SD21_BASE

SMALL = {
    "unet": SD21_BASE["unet"]
    | {
        "sample_size": 8,
        "block_out_channels": [8, 16],
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "attention_head_dim": [2, 2],
        "cross_attention_dim": 16,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "vae": {
        "block_out_channels": [8] * 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "norm_num_groups": 4,
    },
    "scheduler": SD21_BASE["scheduler"],
}


@pytest.fixture(scope="module")
def pipe():
    pipe = random_sd21(json.loads(json.dumps(SMALL)))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def tiles():
    return speed_tile(16), speed_tile(16, 1)


def test_random_weights_give_finite_pictures(pipe, tiles):
    for part in (pipe.unet, pipe.controlnet, pipe.vae):
        assert all(torch.isfinite(p).all() and not p.is_meta for p in part.parameters())
    image = pipe(tiles[0], tiles[1], num_inference_steps=1, output_type="np").images[0]
    assert image.shape == (16, 16, 3) and np.ptp(image) > 0


def test_all_calls_are_timed_or_it_is_said_how_many(pipe, tiles):
    threads = torch.get_num_threads()
    (row,), seconds = sd21_speed(pipe, 1, *tiles, limit_s=600.0)
    assert row["arm"] == SD21_ARM and row["seconds"] == seconds > 0
    (row,), seconds = sd21_speed(pipe, 1, *tiles, limit_s=0.0)
    assert row["seconds_from_4_of_21_calls"] == seconds > 0 and "seconds" not in row
    assert torch.get_num_threads() == threads
    assert not pipe.unet._forward_pre_hooks


def test_every_arm_of_a_model_is_timed(pipe, tiles):
    rows = model_speed(pipe, 1, *tiles, repeats=1)
    assert {row["arm"] for row in rows} == {"render"}
    assert {row["data"] for row in rows} == {SPEED_DATA, ANEW_DATA}
    (first, *_) = times_faster(rows, 100.0)
    own = [r["seconds"] for r in rows if r["arm"] == "render" and r["data"] == SPEED_DATA]
    assert first["times_faster_than_sd21"] == pytest.approx(100.0 / np.mean(own))


def test_the_sweep_covers_every_combination_and_leaves_the_model_as_it_was(pipe, tiles):
    rows = gpu_rows(
        {"sd21": pipe}, *tiles, device="cpu", batches=(1, 2), precisions=("fp32",), seconds=0.0
    )
    assert len(rows) == 2 * 3 * 2
    assert len({row["data"] for row in rows}) == len(rows)
    assert all(row["tiles_per_s"] > 0 for row in rows)
    assert rows[0]["mpix_per_s"] == pytest.approx(rows[0]["tiles_per_s"] * 256 / 1e6)
    assert pipe.config.context_tokens is None and pipe.unet.dtype == torch.float32


def test_without_a_gpu_the_rows_say_so():
    rows = not_measured(["sd21", "compact"])
    assert {row["mean"] for row in rows} == {NOT_MEASURED} and {row["n"] for row in rows} == {0}
    assert {row["metric"] for row in rows} == {"tiles_per_s", "mpix_per_s", "peak_gib"}
    assert len(rows) == 2 * 2 * 3 * 2 * 3
