"""A slide in, the same slide in the target's stain out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.slide_job import SlideJob
from stainfuser.diffusion.slide_planning import MaskedSlide
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.errors import SlideError
from stainfuser.files import (
    exclusive_folder,
    read_json,
    sha256_content,
    sha256_file,
    write_json,
)
from stainfuser.io.images import read_image
from stainfuser.io.masks import read_mask
from stainfuser.io.outputs import check_writable
from stainfuser.io.slides import file_state
from stainfuser.seeds import derive_seed
from stainfuser.stamps import make_stamp, settings_of


def normalize_slide(
    *,
    slide: str,
    slide_path: str | Path,
    json_path: str | Path,
    mask_path: str | Path,
    target_path: str | Path,
    model_dir: str | Path,
    output_path: str | Path,
    record_path: str | Path,
    work_dir: str | Path,
    seed: int,
    mode: str,
    operator: str,
    tile_px: int,
    overlap_px: int,
    sample_tiles: int,
    residual_limit_de: float,
    fidelity_tiles: int,
    structure_guard_um: float,
    num_inference_steps: int | None,
    jpeg_quality: int,
    output_tile_px: int,
    block_px: int,
    corrupt_tiles: str,
    icc_profile: str,
    image_operator: str,
    threads: int = 1,
    device: str | None = None,
    load_model: Callable[[str | Path, str | None], Any] = load_pipeline,
) -> None:
    """Write a slide in the target's stain, and a JSON record of how it was made.

    Parameters
    ----------
    slide
        The slide's name.
    slide_path, json_path, mask_path, target_path, model_dir
        Source, its probe record, its tissue mask, the reference image and the model's folder.
    output_path, record_path
        The slide (Aperio-style BigTIFF) and its record.
    work_dir
        Folder for unfinished work: a killed run goes on from there. Removed at the end.
    seed
        Chooses the tiles of the fit and, for models that start from noise, the noise.
    threads, device, load_model
        They do not change the result (up to the arithmetic of the device).

    The other parameters are the section `normalize` of the configuration.

    Raises
    ------
    SlideError
        The slide is damaged and `corrupt_tiles` is "fail".
    InputError
        Model, target, mask or an output folder cannot be used.
    ConfigError
        A key of the section is out of range.
    """
    options = NormalizeOptions(
        mode=mode,
        operator=operator,
        tile_px=tile_px,
        overlap_px=overlap_px,
        sample_tiles=sample_tiles,
        residual_limit_de=residual_limit_de,
        fidelity_tiles=fidelity_tiles,
        structure_guard_um=structure_guard_um,
        num_inference_steps=num_inference_steps,
        jpeg_quality=jpeg_quality,
        output_tile_px=output_tile_px,
        block_px=block_px,
        corrupt_tiles=corrupt_tiles,
        icc_profile=icc_profile,
        image_operator=image_operator,
    )
    for folder in (Path(output_path).parent, Path(record_path).parent, Path(work_dir)):
        check_writable(folder)
    model = StageModel(
        model_dir,
        read_image(target_path),
        options,
        derive_seed(seed, "noise", slide),
        lambda: load_model(model_dir, device),
        threads,
    )
    job = SlideJob(
        slide,
        Path(slide_path),
        MaskedSlide(slide, read_json(json_path), read_mask(mask_path)),
        options,
        seed,
        threads,
        model,
    )
    stamp = make_stamp(
        "normalize_slide",
        {**asdict(options), "seed": seed},
        source_sha256=job.masked.probe["sha256"],
        mask_sha256=sha256_file(mask_path),
        target_sha256=sha256_file(target_path),
        model_sha256=fingerprint_model(model_dir),
    )
    known = [settings_of(stamp), job.masked.probe["mpp"], file_state(job.slide_path)]
    key = sha256_content(known)[:16]
    job.plan_ahead(Path(work_dir) / key)
    with exclusive_folder(work_dir):
        try:
            holes = job.write(Path(output_path), _enter_run_dir(Path(work_dir), key), stamp)
            write_json(record_path, job.describe(Path(target_path).stem, holes, stamp))
        except SlideError:
            shutil.rmtree(work_dir)  # only another source can help, and then nothing of this
            raise
        shutil.rmtree(work_dir)


def _enter_run_dir(work_dir: Path, key: str) -> Path:
    """Return the work folder of this key and delete those of other inputs or settings."""
    run_dir = work_dir / key
    for other in work_dir.iterdir():
        if other not in (run_dir, work_dir / "lock"):
            shutil.rmtree(other) if other.is_dir() else other.unlink()
    run_dir.mkdir(exist_ok=True)
    return run_dir
