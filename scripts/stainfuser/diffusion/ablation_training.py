"""One instance of an ablation: the model it trains, and how near that comes to the truth."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.ablation_data import MPP, AblationPairs, AblationPhantoms
from stainfuser.diffusion.objectives import objective_named
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.training import TrainingParameters, train_pipeline
from stainfuser.errors import ConfigError
from stainfuser.files import exclusive_folder, sha256_content
from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr

# Share of training crops that come from twice the area at half the resolution.
HALF_RESOLUTION = {"20x": 1.0, "40x": 0.0, "mixed": 0.5}
# What decides how a model is run, not how it is trained.
RUN_AXES = ("run_px", "sampling_steps")
STARTS = ("source", "statistics")
# Options that are lists in the configuration.
TUPLES = ("channels", "trained_unet_parts")
# Whole factors by which test tiles are averaged.
TEST_FACTORS = {"40x": 1, "20x": 2}

Images = NDArray[np.uint8]


def training_options(instance: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section `train` of the configuration as an instance changes it.

    The autoencoder is "frozen" (principal components of patches, nothing learned), "finetuned"
    (its decoder is trained on these images) or "none": all numbers of a patch are kept, which is
    an orthogonal transform of the pixels as the DCT is one, and loses nothing.
    """
    options = dict(train)
    options.update(
        initial_model=None,
        operator_head=None,
        stored_examples=0,
        start=train["start"] if train["start"] in STARTS else "statistics",
        objective=instance["objective"],
        crop_px=instance["training_px"],
        half_resolution_probability=HALF_RESOLUTION[instance["magnification"]],
        steps=instance["training_steps"],
        context_tokens=instance["context_tokens"] or None,
    )
    if not objective_named(instance["objective"]).has_one_step:
        options["finetune_steps"] = 0
    if instance["autoencoder"] != "finetuned":
        options["autoencoder_steps"] = 0
    if instance["autoencoder"] == "none":
        options["latent_channels"] = 3 * train["latent_patch_px"] ** 2
    return options


def trained_model(
    instance: Mapping[str, Any],
    phantoms: AblationPhantoms,
    train: Mapping[str, Any],
    pair_options: Mapping[str, Any],
    key: str,
    folder: Path,
    seed: int,
) -> StainFuserPipeline:
    """Return the model of an instance; instances that are only run differently share one.

    `key` is the fingerprint of the phantoms; `folder` keeps checkpoints and finished models.
    """
    from accelerate import Accelerator

    options = training_options(instance, train)
    _check_crop(options, phantoms.source.shape[1], instance["magnification"])
    axes = {name: value for name, value in instance.items() if name not in RUN_AXES}
    own = folder / sha256_content([axes, options, dict(pair_options), key, seed])[:16]
    accelerator = Accelerator()
    with exclusive_folder(own):
        if not (own / "model" / "model_index.json").exists():
            pairs = AblationPairs(
                phantoms, instance["targets"], instance["pair_method"], pair_options
            )
            names = [field.name for field in fields(TrainingParameters)]
            chosen = {name: options[name] for name in names}
            chosen.update({name: tuple(options[name]) for name in TUPLES})
            result = train_pipeline(
                pairs.images(),
                pairs.split(),
                TrainingParameters(**chosen),
                accelerator,
                own,
                seed,
                MPP,
            )
            _save(result.trained, own)
        return StainFuserPipeline.from_pretrained(own / "model").to(accelerator.device)


def measured_rows(
    model: StainFuserPipeline, phantoms: AblationPhantoms, run_px: int, sampling_steps: int
) -> list[dict[str, Any]]:
    """Return one row per test pair and metric: pair, laboratory, metric, value.

    Metrics end in the magnification they are measured at. "untouched" is what doing nothing gives.
    """
    rows = []
    for number, laboratory in enumerate(phantoms.test_laboratory.tolist()):
        images = (phantoms.test_source, phantoms.test_target, phantoms.test_truth)
        for name, factor in TEST_FACTORS.items():
            source, target, truth = (averaged(image[number], factor) for image in images)
            result = run_tiles(model, source, target, run_px, sampling_steps)
            values = {
                f"ciede2000_truth_{name}": ciede2000(result, truth),
                f"psnr_truth_{name}": psnr(result, truth),
                f"gradient_correlation_{name}": gradient_correlation(source, result),
                f"ciede2000_untouched_{name}": ciede2000(source, truth),
            }
            rows += [
                {"pair": number, "laboratory": laboratory, "metric": metric, "value": value}
                for metric, value in values.items()
            ]
    return rows


def run_tiles(
    model: StainFuserPipeline, source: Images, target: Images, run_px: int, sampling_steps: int
) -> Images:
    """Render an image tile by tile, each tile by itself, as published."""
    height, width = source.shape[:2]
    corners = [(y, x) for y in range(0, height, run_px) for x in range(0, width, run_px)]
    tiles = [source[y : y + run_px, x : x + run_px] for y, x in corners]
    # With as many pixels in a call, whatever their size.
    batch = max(1, 65536 // run_px**2)
    rendered = model(
        tiles,
        model.encode_target(target),
        num_inference_steps=sampling_steps or None,
        output_type="np",
        mode="render",
        batch_size=batch,
    ).images
    out = np.empty_like(source)
    for (y, x), tile in zip(corners, rendered, strict=True):
        out[y : y + run_px, x : x + run_px] = tile
    return out


def averaged(image: Images, factor: int) -> Images:
    """Average (H, W, 3) over whole boxes of factor x factor px."""
    if factor == 1:
        return image
    rows, columns = (side // factor for side in image.shape[:2])
    boxes = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    return np.rint(boxes.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)


def _check_crop(options: Mapping[str, Any], image_px: int, magnification: str) -> None:
    needed = options["crop_px"] * (1 if magnification == "40x" else 2)
    if needed > image_px:
        wrong = f"crops at {magnification} need tiles of {needed} px, the phantoms have {image_px}"
        raise ConfigError("ablation.axes.training_px", wrong, "raise ablation.tile_px")


def _save(model: StainFuserPipeline, own: Path) -> None:
    """Write the model whole or not at all, and drop what only training needed."""
    partial = own / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, safe_serialization=True)
    partial.rename(own / "model")
    for name in ("autoencoder", "diffusion", "finetune"):
        shutil.rmtree(own / name, ignore_errors=True)
