"""What a path is, without opening more than the head of a .tif: a slide or plain images.

Used while the workflow is parsed, so it imports the standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path

from stainfuser.io.tiff_headers import TILE_WIDTH_TAG, walk_directories

SLIDE_SUFFIXES = frozenset(
    {".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".svslide"}
    | {".dcm", ".czi"}
)
"""Suffixes of slides; OpenSlide 4.0 cannot read .czi, which its probe then says."""

PLAIN_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
"""Suffixes of plain images; a .tif that is not tiled is one as well."""


def kind_of(path: str | Path) -> str:
    """Return "images" for plain image files and for folders of them, else "slide"."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in PLAIN_SUFFIXES:
        return "images"
    if suffix in {".tif", ".tiff"}:
        return "images" if _is_plain_tiff(path) else "slide"
    if suffix in SLIDE_SUFFIXES or not path.is_dir():
        return "slide"
    return "images" if list_images(path) else "slide"


def list_images(path: str | Path) -> list[Path]:
    """Return the plain images of a set, sorted by name: those of a folder, or the file itself."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return [child for child in visible_paths(path) if is_image(child)]


def visible_paths(folder: Path) -> list[Path]:
    """Return the paths in a folder, sorted by name, without hidden ones."""
    return [folder / name for name in sorted(os.listdir(folder)) if not name.startswith(".")]


def is_slide_like(path: Path) -> bool:
    """Return whether a path has the suffix of a slide, whatever it is."""
    return path.suffix.lower() in SLIDE_SUFFIXES


def is_image(path: Path) -> bool:
    """Return whether a path has the suffix of a plain image; a .tif must not be tiled."""
    suffix = path.suffix.lower()
    if suffix in PLAIN_SUFFIXES:
        return not path.is_dir()
    return suffix in {".tif", ".tiff"} and _is_plain_tiff(path)


def _is_plain_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF whose first image is stored in strips, not in tiles.

    Anything else (missing, damaged, not a TIFF) is left to the slide's probe.
    """
    try:
        with open(path, "rb") as handle:
            return TILE_WIDTH_TAG not in next(walk_directories(handle), {TILE_WIDTH_TAG})
    except (OSError, EOFError, ValueError):
        return False
