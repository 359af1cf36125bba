"""Pictures inside an HTML file: encoded as data URIs, no larger than they are shown."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

PHOTO_QUALITY = 84


@dataclass(frozen=True)
class Picture:
    """A picture ready to be embedded: data URI, size in px and text for those who do not see it."""

    uri: str
    width_px: int
    height_px: int
    alt: str


def embed_photo(rgb: NDArray[np.uint8], alt: str, quality: int = PHOTO_QUALITY) -> Picture:
    """Embed (H, W, 3) uint8 RGB as a JPEG, 4:4:4 because stains are colours."""
    return _embed_jpeg(Image.fromarray(rgb), alt, quality)


def embed_file(path: str | Path, alt: str, max_side_px: int | None = None) -> Picture | None:
    """Embed a picture file, made smaller where a side is above `max_side_px`; None if unreadable.

    Without `max_side_px` the file's bytes are embedded as they are (figures stay sharp).
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            if max_side_px is None:
                kind = "png" if image.format == "PNG" else "jpeg"
                return Picture(_data_uri(kind, path.read_bytes()), *image.size, alt)
            rgb = image.convert("RGB")
            rgb.thumbnail((max_side_px, max_side_px), Image.Resampling.LANCZOS)
            return _embed_jpeg(rgb, alt, PHOTO_QUALITY)
    except (OSError, UnidentifiedImageError, ValueError):
        return None


def _embed_jpeg(image: Image.Image, alt: str, quality: int) -> Picture:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0, optimize=True)
    return Picture(_data_uri("jpeg", buffer.getvalue()), *image.size, alt)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
