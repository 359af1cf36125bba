"""Plain images: any common file to RGB arrays and back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from stainfuser.errors import InputError
from stainfuser.files import atomic_path

MAX_PIXELS = 1_000_000_000
"""Largest image that is read into memory, px: 3 GB as RGB."""

# Pillow's own limit is a warning at 89 MP, below the size of ordinary regions of slides; images
# over MAX_PIXELS are refused by `read_image` before a pixel is decoded.
Image.MAX_IMAGE_PIXELS = None

_BITS_PER_SAMPLE_TAG = 258
_EXPECTED = "expected a readable image (PNG, JPEG or TIFF)"
_REMEDY = "check the file or give another one"


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Read an image as (H, W, 3) uint8 RGB.

    Transparency is composited on white, grey and palette images become RGB, 16-bit samples are
    scaled to 8 bit. Pixels stay as stored: neither EXIF rotation nor an ICC profile is applied.

    Raises
    ------
    InputError
        The file is missing, empty, truncated, not an image, larger than `MAX_PIXELS`, or of a
        kind without a colour reading (floating point, more than four channels).
    """
    path = Path(path)
    check_file(path)
    try:
        with Image.open(path) as image:
            _check_size(path, *image.size)
            if not _is_deep_tiff(image):
                image.load()
                return _to_rgb(path, image)
        return _read_with_tifffile(path)
    except UnidentifiedImageError:
        return _read_with_tifffile(path)
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(path, f"{_EXPECTED}, but it is damaged ({error})", _REMEDY) from None


def check_file(path: Path) -> None:
    """Raise `InputError` unless `path` is a file with content."""
    if path.is_dir():
        raise InputError(path, f"{_EXPECTED}, but it is a folder", "give one image file")
    if not path.exists():
        raise InputError(path, "there is no such file", "check the path")
    if path.stat().st_size == 0:
        raise InputError(path, "the file is empty (0 bytes)", "copy or download it again")


def write_image(
    path: str | Path,
    pixels: NDArray[np.uint8],
    *,
    quality: int = 90,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write (H, W, 3) uint8 RGB or (H, W) uint8 grey atomically, in the format of the suffix.

    JPEGs are written 4:4:4, because colour is what they are for. `text` (a stamp) becomes PNG
    text chunks, the comment of a JPEG or the description of a TIFF.
    """
    with atomic_path(path) as partial:
        partial.write_bytes(encode_image(pixels, Path(path).suffix, quality=quality, text=text))


def encode_image(
    pixels: NDArray[np.uint8],
    suffix: str,
    *,
    quality: int = 90,
    text: Mapping[str, str] | None = None,
) -> bytes:
    """Return the bytes of an image file: ".png", ".jpg"/".jpeg" or ".tif"/".tiff"."""
    image = Image.fromarray(pixels)
    suffix = suffix.lower()
    buffer = io.BytesIO()
    attributes = dict(text or {})
    if suffix == ".png":
        chunks = PngImagePlugin.PngInfo()
        for key, value in attributes.items():
            chunks.add_itxt(key, str(value))
        image.save(buffer, "PNG", pnginfo=chunks)
    elif suffix in {".jpg", ".jpeg"}:
        comment = "\n".join(f"{key}: {value}" for key, value in attributes.items())
        image.save(buffer, "JPEG", quality=quality, subsampling=0, comment=comment.encode())
    elif suffix in {".tif", ".tiff"}:
        description = "\n".join(f"{key}: {value}" for key, value in attributes.items())
        tags = {270: description} if description else {}
        image.save(buffer, "TIFF", compression="tiff_lzw", tiffinfo=tags)
    else:
        raise ValueError(f"no image format for the suffix {suffix!r}")
    return buffer.getvalue()


def composite_on_white(image: Image.Image) -> Image.Image:
    """Return an RGB image: `image` over a white background (transparent pixels turn white)."""
    if image.mode == "RGB":
        return image
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(rgba.convert("RGB"), mask=alpha)
    return white


def _check_size(path: Path, width_px: int, height_px: int) -> None:
    if width_px * height_px > MAX_PIXELS:
        found = f"it has {width_px} x {height_px} px, more than {MAX_PIXELS:.0e} px in all"
        raise InputError(path, found, "crop it, or store it as a tiled slide")


def _is_deep_tiff(image: Image.Image) -> bool:
    """Return whether a TIFF has more than 8 bit, which Pillow reads wrongly if it is planar."""
    tags = getattr(image, "tag_v2", {})
    return max(tags.get(_BITS_PER_SAMPLE_TAG, (8,))) > 8


def _to_rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith("I"):
        return _array_to_rgb(path, np.asarray(image))
    if image.mode == "F":
        raise InputError(path, "its samples are floating point, expected 8 or 16 bit", _REMEDY)
    transparent = image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info
    return np.asarray(composite_on_white(image) if transparent else image.convert("RGB")).copy()


def _read_with_tifffile(path: Path) -> NDArray[np.uint8]:
    """Read what Pillow does not know: 16-bit RGB, JPEG 2000 and planar TIFFs."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[0]
            _check_size(path, page.imagewidth, page.imagelength)
            axes, array = page.axes, page.asarray()
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, RuntimeError):
        raise InputError(path, f"{_EXPECTED}, but it is none", _REMEDY) from None
    if axes == "SYX":
        array = np.moveaxis(array, 0, -1)
    return _array_to_rgb(path, array)


def _array_to_rgb(path: Path, array: NDArray) -> NDArray[np.uint8]:
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        # 257 maps 65535 to 255; wider integers hold 16-bit samples in Pillow's mode "I".
        array = (np.clip(array, 0, 65535).astype(np.uint32) // 257).astype(np.uint8)
    if array.ndim == 2:
        array = np.stack([array] * 3, axis=-1)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (3, 4):
        found = f"it holds {array.dtype} samples of shape {array.shape}, expected an RGB image"
        raise InputError(path, found, _REMEDY)
    if array.shape[2] == 4:
        return np.asarray(composite_on_white(Image.fromarray(array, "RGBA"))).copy()
    return np.ascontiguousarray(array)
