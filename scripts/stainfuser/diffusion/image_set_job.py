"""A set of plain images on its way to the target's stain: each by itself, or all as one slide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import make_change
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.painting import SlidePainter
from stainfuser.diffusion.planning import Plan, Sample
from stainfuser.diffusion.rendering import TilesInMemory
from stainfuser.diffusion.slide_view import SlideView, choose_plane_mpp, draw_tiles
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.errors import InputError
from stainfuser.files import read_json, write_json
from stainfuser.io.image_sets import ImageReader
from stainfuser.io.images import write_image
from stainfuser.io.slide_layout import plan_blocks
from stainfuser.logs import LOGGER, progress
from stainfuser.seeds import generator
from stainfuser.stain.tissue import background_colour

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


@dataclass
class ImageSetJob:
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
        pixels, plan = self._normalized(self._open(name), name, shared)
        quality = self.options.jpeg_quality
        write_image(folder / name, pixels, quality=quality, text=self._text())
        details = {key: plan.to_json()[key] for key in TOLD_OF_IMAGES}
        size = {"width_px": pixels.shape[1], "height_px": pixels.shape[0], "mpp": self.mpp}
        return {"name": name, **size, **details}

    def _normalized(
        self, reader: ImageReader, name: str, shared: Plan | None
    ) -> tuple[RgbImage, Plan]:
        view = self.view(reader)
        options = self.options_for([view])
        plan = shared or self._plan([reader], [view], options, name)
        return self._paint(reader, view, plan, options), plan

    def examples(self, count: int) -> list[tuple[RgbImage, RgbImage, Plan]]:
        """Return some images spread over the set, before and after, and the plan of each.

        What cannot be read is passed over.
        """
        names = [image["name"] for image in self.record["images"]]
        shared = (
            self._make_shared_plan(names) if self.options.image_operator == "per_folder" else None
        )
        runs = np.array_split(np.arange(len(names)), min(count, len(names)) or 1)
        found = []
        for name in (names[run[len(run) // 2]] for run in runs if len(run)):
            try:
                reader = self._open(name)
                before = reader.pixels
                found.append((before, *self._normalized(reader, name, shared)))
            except InputError as error:
                LOGGER.warning("%s: left out: %s", name, error.wrong)
        return found

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
        plan = self._make_shared_plan(names)
        if plan is not None:
            write_json(path, plan.to_json())
        return plan

    def _make_shared_plan(self, names: list[str]) -> Plan | None:
        readers, views = self._draw_images(names)
        if not readers:
            return None
        return self._plan(readers, views, self.options_for(views), "all images")

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
