"""A few pictures of a slide or of plain images, before and after: minutes, not the whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.diffusion.changes import OperatorChange, Piece
from stainfuser.diffusion.fidelity import fidelity_of
from stainfuser.diffusion.image_set_job import ImageSetJob
from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.diffusion.normalize_options import NormalizeOptions
from stainfuser.diffusion.planning import Plan
from stainfuser.diffusion.slide_planning import MaskedSlide
from stainfuser.diffusion.stage_model import StageModel
from stainfuser.errors import SlideError
from stainfuser.files import read_json, sha256_file, write_json
from stainfuser.io.filling_reader import FillingReader
from stainfuser.io.images import read_image, write_image
from stainfuser.io.masks import read_mask
from stainfuser.io.slides import SlideReader
from stainfuser.seeds import derive_seed
from stainfuser.stamps import make_stamp

TOLD = ("mode_used", "reason", "residual", "confidence", "remarks")
FRAME_PX = 3
Rgb = NDArray[np.uint8]


def preview_slide(
    *,
    slide: str,
    slide_path: str | Path,
    json_path: str | Path,
    mask_path: str | Path,
    target_path: str | Path,
    model_dir: str | Path,
    strip_path: str | Path,
    record_path: str | Path,
    seed: int,
    normalize_options: Mapping[str, Any],
    tiles: int,
    cell_px: int,
    device: str | None = None,
    load_model: Callable[[str | Path, str | None], Any] = load_pipeline,
) -> None:
    """Write what `normalize_slide` would make of a slide's thumbnail and of some of its tiles.

    Plan, sample and seed are those of `normalize_slide`, so that the colours are, too. Of plain
    images some are shown whole, as `normalize_images` makes them.

    Parameters
    ----------
    slide, slide_path, json_path, mask_path, target_path, model_dir, seed
        As for `normalize_slide`.
    strip_path
        JPEG, (2 * cell_px, (tiles + 1) * cell_px): thumbnail and tiles; above as they are, below as
        they become. The thumbnail shows the operator also where tiles are rendered.
    record_path
        JSON: mode, residual, confidence and remarks.
    normalize_options
        Section `normalize` of the configuration.
    tiles, cell_px
        Number of tiles, spread over the tissue, and side of a picture, px.

    Raises
    ------
    SlideError
        The slide cannot be read.
    InputError, ConfigError
        As for `normalize_slide`.
    """
    options = NormalizeOptions(**normalize_options)
    noise = derive_seed(seed, "noise", slide)
    target = read_image(target_path)
    model = StageModel(model_dir, target, options, noise, lambda: load_model(model_dir, device))
    probe = read_json(json_path)
    if probe.get("kind") == "images":
        job = ImageSetJob(slide, Path(slide_path), probe, options, seed, 1, {}, model)
        pairs, told = _images(job, tiles + 1)
    else:
        masked = MaskedSlide(slide, probe, read_mask(mask_path))
        pairs, told = _slide(Path(slide_path), masked, model, options, seed, tiles, cell_px)
    pairs += [(np.full((8, 8, 3), 255, np.uint8),) * 2] * (tiles + 1 - len(pairs))
    strip = np.vstack([np.hstack([_fit(pair[i], cell_px) for pair in pairs]) for i in (0, 1)])
    stamp = make_stamp(
        "preview_slide",
        {**normalize_options, "seed": seed, "tiles": tiles, "cell_px": cell_px},
        source_sha256=probe["sha256"],
        target_sha256=sha256_file(target_path),
        model_sha256=fingerprint_model(model_dir),
    )
    write_image(strip_path, strip, quality=90)
    if options.mode == "render" and told["mode_used"] == "operator":
        told |= {"mode_used": "render"}
    write_json(
        record_path, {"slide": slide, "target": Path(target_path).stem, **told, "stamp": stamp}
    )


def _images(job: ImageSetJob, count: int) -> tuple[list[tuple[Rgb, Rgb]], dict[str, Any]]:
    """Return some images before and after, and what is told of the most doubtful of them."""
    found = job.examples(count)
    if not found:
        raise SlideError(job.slide, "unreadable", "none of its images can be read", "check them")
    plans = [plan for *_, plan in found]
    doubtful = min(plans, key=lambda plan: 1.0 if plan.confidence is None else plan.confidence)
    return [(before, after) for before, after, _ in found], _told(doubtful)


def _slide(
    path: Path,
    masked: MaskedSlide,
    model: StageModel,
    options: NormalizeOptions,
    seed: int,
    tiles: int,
    cell_px: int,
) -> tuple[list[tuple[Rgb, Rgb]], dict[str, Any]]:
    """Return thumbnail and tiles before and after, and what is told of the slide."""
    with FillingReader(SlideReader(path, masked.probe["mpp"])) as reader:
        white = masked.glass(reader)
        fitted = options if model.uses_head else replace(options, mode="operator")
        plan = masked.plan(reader, model, fitted, white, seed)
        pairs = [_thumbnail(reader, masked, plan, cell_px)]
        pairs += _tiles(reader, masked, plan, model, options, tiles)
        fidelity = fidelity_of(plan, masked, model, options, reader)
    return pairs, {**_told(plan), "fidelity": fidelity}


def _told(plan: Plan) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in TOLD}


def _thumbnail(
    reader: FillingReader, masked: MaskedSlide, plan: Plan, side_px: int
) -> tuple[Rgb, Rgb]:
    """Return the whole slide before and after; without an operator it stays."""
    before = reader.thumbnail(side_px)
    view = masked.view(plan.model_mpp)
    size = before.shape[1::-1]
    weight = np.asarray(Image.fromarray(view.weight).resize(size, Image.Resampling.BOX))
    return before, _by_operator(plan, before, weight)


def _tiles(
    reader: FillingReader,
    masked: MaskedSlide,
    plan: Plan,
    model: StageModel,
    options: NormalizeOptions,
    count: int,
) -> list[tuple[Rgb, Rgb]]:
    """Return tiles of the plan's sample, spread over all of it, before and after.

    The sample lies in reading order; of each of `count` runs the darkest tile shows most tissue.
    """
    view, side_px = masked.view(plan.model_mpp), options.tile_px
    read = [view.read_tile(reader, x, y, side_px) for x, y in plan.tiles]
    runs = np.array_split(np.arange(len(read)), min(count, len(read)) or 1)
    chosen = [min(run, key=lambda i: read[i].mean()) for run in runs if len(run)]
    if not chosen:
        return []
    before, corners = [read[i] for i in chosen], [plan.tiles[i] for i in chosen]
    if options.mode == "render" or plan.mode_used == "render":
        after = list(model.renderer(before, [(y, x) for x, y in corners]))
    else:
        full = np.full((side_px, side_px), 255, np.uint8)
        after = [_by_operator(plan, tile, full) for tile in before]
    return list(zip(before, after, strict=True))


def _by_operator(plan: Plan, rgb: Rgb, weight: NDArray[np.uint8]) -> Rgb:
    if plan.operator is None:
        return rgb
    height_px, width_px = rgb.shape[:2]
    rgbx = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    change = OperatorChange(plan.colour_operator(), height_px * width_px)
    change.apply(Piece(0, 0, width_px, height_px), rgbx, weight)
    return np.ascontiguousarray(rgbx[..., :3])


def _fit(rgb: Rgb, side_px: int) -> Rgb:
    """Return a picture centred on a white square, with a thin white frame."""
    image, inner_px = Image.fromarray(rgb), side_px - 2 * FRAME_PX
    image.thumbnail((inner_px, inner_px), Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side_px, side_px), (255, 255, 255))
    square.paste(image, ((side_px - image.width) // 2, (side_px - image.height) // 2))
    return np.asarray(square)
