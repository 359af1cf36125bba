"""Plain images in place of a slide: the same reading interface, one level, no pyramid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.io.images import read_image
from stainfuser.io.regions import Level, RegionReader


class ImageReader(RegionReader):
    """One plain image, held in memory.

    Images rarely say their resolution: `mpp` is what the user states, or the resolution wanted,
    so that `read_at_mpp` takes the pixels as they are.
    """

    objective_power: float | None = None

    def __init__(self, path: str | Path, mpp: float) -> None:
        self.path = Path(path)
        self._mpp = mpp
        self._image: Image.Image | None = None

    @property
    def image(self) -> Image.Image:
        """The pixels as RGBA; outside of them a crop is transparent."""
        if self._image is None:
            self._image = Image.fromarray(read_image(self.path)).convert("RGBA")
        return self._image

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The whole image, (H, W, 3) uint8 RGB."""
        return np.array(self.image.convert("RGB"))

    @property
    def levels(self) -> tuple[Level, ...]:
        """The one level."""
        return (Level(*self.image.size, 1.0),)

    @property
    def mpp(self) -> float:
        """Micrometres per px."""
        return self._mpp

    def close(self) -> None:
        """Free the pixels; a later read loads them again."""
        self._image = None

    def _fetch(
        self, x_px: int, y_px: int, width_px: int, height_px: int, level: int
    ) -> Image.Image:
        return self.image.crop((x_px, y_px, x_px + width_px, y_px + height_px))


def open_images(
    path: str | Path, names: Iterable[str], mpp: float
) -> Iterator[tuple[str, ImageReader]]:
    """Yield (file name, reader) of an image set, one image in memory at a time.

    `path` is the folder of the set, or its only image; `names` are the usable files, as
    `probe_slide` lists them.
    """
    path = Path(path)
    for name in names:
        with ImageReader(path / name if path.is_dir() else path, mpp) as reader:
            yield name, reader
