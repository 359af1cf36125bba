"""The stages with the real pipeline, small and untrained: what it makes is noise, but its own."""

from __future__ import annotations

import numpy as np
import pytest
from normalize_files import Case

from slide_files import tissue_picture
from stainfuser.diffusion.loading import load_pipeline
from stainfuser.errors import InputError
from tiny_pipeline import untrained_pipeline


@pytest.fixture(scope="module")
def save_model():
    """Return a function that saves an untrained pipeline of an objective into a folder."""

    def save(folder, objective):
        pipeline = untrained_pipeline(
            seed=1, objective=objective, latent_channels=8, channels=(8, 16)
        )
        pipeline.save_pretrained(folder)

    return save


@pytest.mark.parametrize(("objective", "steps"), [("bridge", None), ("v_zero_snr", 2)])
def test_rendering_is_repeatable_whatever_the_blocks(tmp_path, save_model, objective, steps):
    case = Case(tmp_path, tissue_picture(500))
    save_model(tmp_path / "model", objective)
    results = []
    for block_px in (256, 512):
        record = case.run(
            mode="render",
            block_px=block_px,
            tile_px=128,
            overlap_px=32,
            sample_tiles=4,
            num_inference_steps=steps,
            load_model=load_pipeline,
            device="cpu",
        )
        results.append(case.pixels())
    assert record["mode_used"] == "render" and record["model_mpp"] == 0.5
    assert (results[0] == results[1]).all()
    assert np.abs(results[0].astype(int) - case.picture)[case.place(of_tissue=True)].mean() > 5
    assert (results[0] == case.recompressed())[case.place(of_tissue=False)].all()


def test_the_operator_of_an_untrained_model_is_fitted_or_refused(tmp_path, save_model):
    case = Case(tmp_path, tissue_picture(500))
    save_model(tmp_path / "model", "bridge")
    options = {"tile_px": 128, "overlap_px": 32, "load_model": load_pipeline, "device": "cpu"}
    record = case.run(residual_limit_de=0.0, **options)
    assert record["mode_used"] == "render" and "over the limit" in record["reason"]
    record = case.run(residual_limit_de=100.0, **options)
    assert record["mode_used"] == "operator"


def test_a_missing_weight_file_is_one_sentence(tmp_path, save_model):
    case = Case(tmp_path, tissue_picture(300))
    save_model(tmp_path / "model", "bridge")
    (tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors") as caught:
        case.run(load_model=load_pipeline, device="cpu")
    assert "\n" not in str(caught.value)
    assert not case.output_path.exists()
