"""Labelled sheets of images: montages, contact sheets, before/after rows. Pillow only."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stainfuser.files import atomic_path

Cell = NDArray[np.uint8] | None

INK = (38, 34, 48)
FAINT_INK = (120, 114, 132)
PAPER = (255, 255, 255)
CELL_EDGE = (222, 218, 228)
TEXT_PX = 14
TITLE_PX = 19
MARGIN_PX = 16


def contact_sheet(
    rows: Sequence[Sequence[Cell]],
    *,
    title: str = "",
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell_px: int = 160,
    gap_px: int = 6,
) -> NDArray[np.uint8]:
    """Lay images out in rows and columns with titles.

    Parameters
    ----------
    rows
        Images (H, W, 3) or (H, W) uint8; None leaves a place empty; rows may differ in length.
        Each image is scaled to fit a square cell, its aspect ratio kept.
    title, column_titles, row_titles
        Texts; a newline in a row title starts a second line, set fainter than the first.
    cell_px, gap_px
        Side of a cell and space between cells, px.

    Returns
    -------
    (H, W, 3) uint8 RGB. No rows at all give a sheet with the title alone.
    """
    columns = max([len(row) for row in rows] + [len(column_titles), 1])
    left = MARGIN_PX + _row_title_width(row_titles)
    top = MARGIN_PX + (TITLE_PX + 12 if title else 0) + (TEXT_PX + 8 if column_titles else 0)
    step = cell_px + gap_px
    needed = max(left + columns * step - gap_px, MARGIN_PX + _text_width(title, TITLE_PX))
    height = top + max(len(rows) * step - gap_px, 0) + MARGIN_PX
    sheet = Image.new("RGB", (needed + MARGIN_PX, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN_PX, MARGIN_PX - 4), title, INK, _font(TITLE_PX))
    for column, text in enumerate(column_titles):
        middle = left + column * step + cell_px // 2
        draw.text((middle, top - 6), text, INK, _font(TEXT_PX), anchor="ms")
    for index, row in enumerate(rows):
        y = top + index * step
        if index < len(row_titles):
            _draw_row_title(draw, row_titles[index], y + cell_px // 2)
        for column, image in enumerate(row):
            if image is not None:
                _paste(sheet, draw, image, left + column * step, y, cell_px)
    return np.asarray(sheet)


def flat_patch(colour: Sequence[float], side_px: int = 64) -> NDArray[np.uint8]:
    """Return a (side_px, side_px, 3) uint8 patch of one RGB colour given in 0-255."""
    rounded = np.clip(np.rint(np.asarray(colour, float)), 0, 255).astype(np.uint8)
    return np.broadcast_to(rounded, (side_px, side_px, 3)).copy()


def split_patch(colours: Sequence[Sequence[float]], side_px: int = 64) -> NDArray[np.uint8]:
    """Return a square patch of horizontal bands, one per RGB colour, first on top."""
    edges = np.linspace(0, side_px, len(colours) + 1).round().astype(int)
    patch = np.empty((side_px, side_px, 3), np.uint8)
    for colour, start, stop in zip(colours, edges[:-1], edges[1:], strict=True):
        patch[start:stop] = flat_patch(colour, 1)
    return patch


def save_picture(path: str | Path, picture: NDArray[np.uint8], quality: int = 90) -> None:
    """Write a (H, W, 3) or (H, W) uint8 picture as PNG or JPEG (by suffix), atomically.

    `quality` is that of a JPEG, which is written 4:4:4 because stains are colours.
    """
    jpeg = Path(path).suffix.lower() in {".jpg", ".jpeg"}
    options = {"quality": quality, "subsampling": 0} if jpeg else {"compress_level": 6}
    with atomic_path(path) as partial:
        Image.fromarray(picture).save(partial, **options)


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, image: NDArray, x: int, y: int, cell_px: int
) -> None:
    """Scale `image` into the cell at (x, y), centred, with a thin frame."""
    height, width = image.shape[:2]
    scale = cell_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
    scaled = Image.fromarray(image).convert("RGB").resize(size, method)
    corner = (x + (cell_px - size[0]) // 2, y + (cell_px - size[1]) // 2)
    sheet.paste(scaled, corner)
    right, bottom = corner[0] + size[0], corner[1] + size[1]
    draw.rectangle((corner[0] - 1, corner[1] - 1, right, bottom), outline=CELL_EDGE)


def _draw_row_title(draw: ImageDraw.ImageDraw, text: str, middle_y: int) -> None:
    """Write the lines of a row title, centred on `middle_y`; all but the first are fainter."""
    lines = text.split("\n")
    y = middle_y - (len(lines) - 1) * (TEXT_PX + 4) / 2
    for index, line in enumerate(lines):
        ink = INK if index == 0 else FAINT_INK
        draw.text((MARGIN_PX, y), line, ink, _font(TEXT_PX), anchor="lm")
        y += TEXT_PX + 4


def _row_title_width(row_titles: Sequence[str]) -> int:
    """Return the width of the widest line of all row titles, with space after it, px."""
    lines = [line for text in row_titles for line in text.split("\n")]
    return max(_text_width(line, TEXT_PX) for line in lines) + 14 if lines else 0


def _text_width(text: str, size_px: int) -> int:
    return int(np.ceil(_font(size_px).getlength(text)))


@functools.cache
def _font(size_px: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return DejaVu Sans, which knows most alphabets, from matplotlib's files (not imported)."""
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        path = Path(matplotlib.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(path, size_px)
    return ImageFont.load_default(size_px)
