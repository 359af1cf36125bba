"""Find the tissue of one slide, or of each image of a set, and draw what was found."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.errors import SlideError
from stainfuser.files import read_json
from stainfuser.io.image_sets import open_images
from stainfuser.io.images import composite_on_white, write_image
from stainfuser.io.masks import write_mask, write_mask_atlas
from stainfuser.io.slides import SlideReader
from stainfuser.logs import LOGGER, progress
from stainfuser.stain.tissue import draw_mask, image_tissue_mask, tissue_fraction, tissue_mask
from stainfuser.stamps import make_stamp

OVERLAY_SIDE_PX = 1000
SHEET_IMAGES = 25
_OVERLAY_QUALITY = 88


def mask_tissue(
    *,
    slide: str,
    slide_path: str | Path,
    json_path: str | Path,
    mask_path: str | Path,
    overlay_path: str | Path,
    um_per_px: float,
) -> None:
    """Write the tissue mask and a picture of it.

    Parameters
    ----------
    slide
        Name of the entry.
    slide_path
        The slide file, an image, or a folder of images.
    json_path
        The record `probe_slide` wrote.
    mask_path
        PNG, 0 or 255, covering the whole slide; of an image set, an atlas (`io.masks`).
    overlay_path
        JPEG, about 1000 px: tissue tinted and outlined.
    um_per_px
        Resolution of the mask; masks of plain images have a quarter of their size instead.

    Raises
    ------
    SlideError
        The record's verdict is not "ok", or the slide can no longer be opened.
    """
    record = read_json(json_path)
    if record["verdict"] != "ok":
        raise SlideError(slide, record["verdict"], record["reason"], record["remedy"])
    stamp = make_stamp("mask_tissue", {"um_per_px": um_per_px}, source_sha256=record["sha256"])
    if record["kind"] == "images":
        picture = _mask_images(Path(slide_path), record, Path(mask_path), stamp)
    else:
        picture = _mask_slide(Path(slide_path), record["mpp"], Path(mask_path), um_per_px, stamp)
    write_image(overlay_path, picture, quality=_OVERLAY_QUALITY, text=stamp)


def _mask_slide(
    path: Path, mpp: float, mask_path: Path, um_per_px: float, stamp: dict[str, str]
) -> NDArray[np.uint8]:
    with SlideReader(path, mpp, fill_corrupt=True) as reader:
        width_px, height_px = reader.size_px
        longest_px = max(1, round(max(width_px, height_px) * mpp / um_per_px))
        # Read once: without a pyramid this decodes the whole slide.
        LOGGER.info("reading %d x %d px", width_px, height_px)
        whole = Image.fromarray(reader.thumbnail_rgba(max(longest_px, OVERLAY_SIDE_PX)))
    overview = np.asarray(_shrink(whole, longest_px))
    picture = np.asarray(composite_on_white(_shrink(whole, OVERLAY_SIDE_PX)))
    if reader.corrupt_regions:
        LOGGER.warning("%d damaged places hold no tissue", len(reader.corrupt_regions))
    alpha = overview[..., 3]
    mask = tissue_mask(overview[..., :3], alpha, um_per_px=um_per_px)
    write_mask(mask_path, mask, stamp)
    LOGGER.info("tissue: %.1f %%", 100 * tissue_fraction(mask, alpha))
    return draw_mask(picture, mask)


def _mask_images(
    path: Path, record: dict, mask_path: Path, stamp: dict[str, str]
) -> NDArray[np.uint8]:
    names = [image["name"] for image in record["images"]]
    shown = set(names[:: max(1, math.ceil(len(names) / SHEET_IMAGES))])
    masks, pictures = {}, []
    images = open_images(path, names, record["mpp"] or 0.5)
    for name, reader in progress(images, "masks", total=len(names)):
        overview, masks[name] = image_tissue_mask(reader.pixels, record["mpp"])
        if name in shown:
            pictures.append(draw_mask(overview, masks[name]))
    write_mask_atlas(mask_path, masks, stamp)
    total = sum(mask.sum() for mask in masks.values()) / sum(mask.size for mask in masks.values())
    LOGGER.info("tissue: %.1f %% of %d images", 100 * total, len(masks))
    return _sheet(pictures)


def _sheet(pictures: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Return pictures in a square grid of about `OVERLAY_SIDE_PX`, centred on white cells."""
    columns = math.ceil(math.sqrt(len(pictures)))
    cell_px = OVERLAY_SIDE_PX // columns
    sheet = np.full((-(-len(pictures) // columns) * cell_px, columns * cell_px, 3), 255, np.uint8)
    for place, picture in enumerate(pictures):
        fitted = np.asarray(_shrink(Image.fromarray(picture), cell_px - 6))
        height, width = fitted.shape[:2]
        top = place // columns * cell_px + (cell_px - height) // 2
        left = place % columns * cell_px + (cell_px - width) // 2
        sheet[top : top + height, left : left + width] = fitted
    return sheet


def _shrink(image: Image.Image, longest_px: int) -> Image.Image:
    scale = longest_px / max(image.size)
    if scale >= 1:
        return image
    width_px, height_px = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width_px, height_px), Image.Resampling.LANCZOS)
