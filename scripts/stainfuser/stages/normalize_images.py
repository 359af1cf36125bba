"""Plain images in, the same images in the target's stain out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stainfuser.diffusion.image_set_job import ImageSetJob
from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.errors import SlideError
from stainfuser.files import exclusive_folder, read_json, sha256_content, sha256_file, write_json
from stainfuser.io.images import read_image
from stainfuser.io.outputs import check_writable, explain_full_disk, move_into_place
from stainfuser.seeds import derive_seed
from stainfuser.stamps import make_stamp, settings_of


def normalize_images(
    *,
    slide: str,
    slide_path: str | Path,
    json_path: str | Path,
    target_path: str | Path,
    model_dir: str | Path,
    output_dir: str | Path,
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
    """Write every image of a set in the target's stain, and one JSON record of how.

    Names, sizes and formats stay; 16-bit, grey and palette images become 8-bit RGB. An image that
    cannot be read is left out and recorded. An image has no tissue mask: its glass is told from
    its tissue by colour alone.

    Parameters
    ----------
    slide
        Name of the set.
    slide_path, json_path, target_path, model_dir
        Folder of the images or the only image, probe record, reference image, model's folder.
    output_dir, record_path
        Folder of the results, which appears when all are done, and their record.
    work_dir
        Folder for unfinished work: a killed run goes on from there. Removed at the end.
    seed
        Chooses the tiles of the fit and, for models that start from noise, the noise.
    threads, device, load_model
        They do not change the result (up to the arithmetic of the device).

    The other parameters are the section `normalize` of the configuration. Images of unknown
    resolution are taken to be at the model's. `output_tile_px`, `corrupt_tiles`, `icc_profile`
    and `fidelity_tiles` are about slides.

    Raises
    ------
    SlideError
        Not one image of the set can be read.
    InputError
        Model, target or an output folder cannot be used.
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
    for folder in (Path(output_dir).parent, Path(record_path).parent, Path(work_dir)):
        check_writable(folder)
    record = read_json(json_path)
    stamp = make_stamp(
        "normalize_images",
        {**asdict(options), "seed": seed},
        source_sha256=record["sha256"],
        target_sha256=sha256_file(target_path),
        model_sha256=fingerprint_model(model_dir),
    )
    model = StageModel(
        model_dir,
        read_image(target_path),
        options,
        derive_seed(seed, "noise", slide),
        lambda: load_model(model_dir, device),
    )
    job = ImageSetJob(slide, Path(slide_path), record, options, seed, threads, stamp, model)
    run_dir = Path(work_dir) / sha256_content([settings_of(stamp), record["mpp"]])[:16]
    with exclusive_folder(work_dir), explain_full_disk(Path(work_dir)):
        images, left_out = job.write_all(run_dir)
        if not images:
            shutil.rmtree(work_dir)
            raise SlideError(slide, "unreadable", "none of its images can be read", "check them")
        move_into_place(run_dir / "images", Path(output_dir))
        entry = {"slide": slide, "target": Path(target_path).stem, "kind": "images", "mode": mode}
        entry |= {"images": images, "left_out": left_out, "stamp": stamp}
        write_json(record_path, entry)
        shutil.rmtree(work_dir)
