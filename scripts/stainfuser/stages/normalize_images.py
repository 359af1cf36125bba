"""Plain images in, the same images in the target's stain out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import make_change
from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.painting import SlidePainter
from stainfuser.diffusion.planning import Plan, Sample
from stainfuser.diffusion.rendering import TilesInMemory
from stainfuser.diffusion.slide_view import SlideView, choose_plane_mpp, draw_tiles
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.errors import InputError, SlideError
from stainfuser.files import read_json, sha256_content, sha256_file, write_json
from stainfuser.io.image_sets import ImageReader
from stainfuser.io.images import read_image, write_image
from stainfuser.io.outputs import check_writable, explain_full_disk, move_into_place
from stainfuser.io.slide_layout import plan_blocks
from stainfuser.logs import LOGGER, progress
from stainfuser.seeds import derive_seed, generator
from stainfuser.stain.tissue import background_colour
from stainfuser.stamps import make_stamp

RgbImage = NDArray[np.uint8]
# What the record of an image takes from its plan.
TOLD_OF_IMAGES = (
    "mode_used",
    "reason",
    "residual",
    "operator_from",
    "confidence",
    "remarks",
    "head",
)
# Smaller images are shown to the model mirrored to this side.
SMALLEST_TILE_PX = 64


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
    job = _ImagesJob(slide, Path(slide_path), record, options, seed, threads, stamp, model)
    run_dir = Path(work_dir) / sha256_content([stamp, record["mpp"]])[:16]
    with explain_full_disk(Path(work_dir)):
        images, left_out = job.write_all(run_dir)
        if not images:
            shutil.rmtree(work_dir)
            raise SlideError(slide, "unreadable", "none of its images can be read", "check them")
        move_into_place(run_dir / "images", Path(output_dir))
        entry = {"slide": slide, "target": Path(target_path).stem, "kind": "images", "mode": mode}
        entry |= {"images": images, "left_out": left_out, "stamp": stamp}
        write_json(record_path, entry)
    shutil.rmtree(work_dir)


@dataclass
class _ImagesJob:
    """One set of images on its way; what of the model it needs is loaded on first use."""

    slide: str
    path: Path
    record: dict[str, Any]
    options: NormalizeOptions
    seed: int
    threads: int
    stamp: dict[str, str]
    model: StageModel

    @cached_property
    def mpp(self) -> float:
        """Resolution of the images: as the user says, else the model's."""
        return self.record["mpp"] or self.model.mpp or 0.5

    def view(self, reader: ImageReader) -> SlideView:
        """Return an image as the model sees it; all of it may be tissue."""
        plane_mpp = choose_plane_mpp(self.model.mpp, self.mpp)
        everywhere = np.full((1, 1), 255, np.uint8)
        return SlideView(*reader.size_px, self.mpp, plane_mpp, everywhere)

    def options_for(self, views: list[SlideView]) -> NormalizeOptions:
        """Return the options with tiles no larger than the largest of some images."""
        largest_px = max(SMALLEST_TILE_PX, *(side for view in views for side in view.plane_px))
        tile_px = min(self.options.tile_px, largest_px)
        overlap_px = min(self.options.overlap_px, tile_px // 2)
        return replace(self.options, tile_px=tile_px, overlap_px=overlap_px)

    def write_all(self, run_dir: Path) -> tuple[list[Any], list[Any]]:
        """Write the images into a work folder; return the records of those done and left out."""
        names = [image["name"] for image in self.record["images"]]
        done, left_out = [], list(self.record["left_out"])
        shared = None
        if self.options.image_operator == "per_folder":
            shared = self._shared_plan(names, run_dir / "plan.json")
        for name in progress(names, self.slide, len(names), unit="image"):
            record_path = run_dir / "records" / f"{name}.json"
            try:
                if not record_path.exists():
                    write_json(record_path, self._write(name, run_dir / "images", shared))
                done.append(read_json(record_path))
            except InputError as error:
                LOGGER.warning("%s: left out: %s", name, error.wrong)
                left_out.append({"name": name, "reason": error.wrong})
        return done, left_out

    def _open(self, name: str) -> ImageReader:
        return ImageReader(self.path / name if self.path.is_dir() else self.path, self.mpp)

    def _write(self, name: str, folder: Path, shared: Plan | None) -> dict[str, Any]:
        """Normalise one image and return its record."""
        reader = self._open(name)
        view = self.view(reader)
        options = self.options_for([view])
        plan = shared or self._plan([reader], [view], options, name)
        write_image(
            folder / name,
            self._paint(reader, view, plan, options),
            quality=options.jpeg_quality,
            text=self._text(),
        )
        details = {key: plan.to_json()[key] for key in TOLD_OF_IMAGES}
        size = {"width_px": view.width_px, "height_px": view.height_px, "mpp": self.mpp}
        return {"name": name, **size, **details}

    def _text(self) -> dict[str, str]:
        """Return what an image says of its making."""
        names = ("software", "version", "config_sha256", "model_sha256", "target_sha256")
        return {name: self.stamp[name] for name in names}

    def _plan(
        self,
        readers: list[ImageReader],
        views: list[SlideView],
        options: NormalizeOptions,
        purpose: str,
    ) -> Plan:
        """Sample some images evenly and make one plan for them."""
        rng = generator(self.seed, "normalize", self.slide, purpose)
        share = max(1, options.sample_tiles // len(readers))
        corners, tiles, whites = [], [], []
        for reader, view in zip(readers, views, strict=True):
            side_px = self.model.sample_px(options)
            drawn = draw_tiles(view, side_px, share, rng)
            corners += drawn
            tiles += [view.read_tile(reader, x, y, side_px) for x, y in drawn]
            pixels = reader.pixels
            whites.append(background_colour(pixels, np.ones(pixels.shape[:2], bool))[0])
            reader.close()
        white = np.median(np.array(whites, np.float64), axis=0)
        name = self.slide if len(readers) > 1 else f"{self.slide}, {purpose}"
        sample = Sample(name, corners, tiles, white, views[0].plane_mpp)
        return self.model.plan(sample, options, rng)

    def _shared_plan(self, names: list[str], path: Path) -> Plan | None:
        """Return one plan for all images, None if no image can be read.

        A killed run's decision stands; to render, its model has to see the sample once more.
        """
        if path.exists():
            plan = Plan.from_json(read_json(path))
            if plan.mode_used != "render":
                return plan
        readers, views = self._draw_images(names)
        if not readers:
            return None
        plan = self._plan(readers, views, self.options_for(views), "all images")
        write_json(path, plan.to_json())
        return plan

    def _draw_images(self, names: list[str]) -> tuple[list[ImageReader], list[SlideView]]:
        """Draw as many readable images as the plan takes tiles."""
        rng = generator(self.seed, "normalize", self.slide, "images")
        readers, views = [], []
        for i in rng.permutation(len(names)):
            reader = self._open(names[i])
            try:
                views.append(self.view(reader))
            except InputError:
                continue  # said when its turn comes
            readers.append(reader)
            reader.close()
            if len(readers) == self.options.sample_tiles:
                break
        return readers, views

    def _paint(
        self, reader: ImageReader, view: SlideView, plan: Plan, options: NormalizeOptions
    ) -> RgbImage:
        """Return the normalised pixels of one image."""
        memory = TilesInMemory()
        change = make_change(plan, view, options, lambda: self.model.renderer, reader, memory)
        painter = SlidePainter(lambda: reader, view, change, self.threads)
        pixels = np.empty((view.height_px, view.width_px, 3), np.uint8)
        for block in plan_blocks(view.width_px, view.height_px, options.block_px):
            rows = slice(block.y_px, block.y_px + block.height_px)
            columns = slice(block.x_px, block.x_px + block.width_px)
            pixels[rows, columns] = painter.paint(block)[0][..., :3]
        painter.close()
        return pixels
