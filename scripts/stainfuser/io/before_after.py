"""The same places of a slide before and after: overview, one crop at full resolution, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.io.slides import SlideReader

# Brighter px count as glass, where only the choice of a picture depends on it.
GLASS_BRIGHTNESS = 215.0

RgbImage = NDArray[np.uint8]
ImagePair = tuple[RgbImage, RgbImage]


@dataclass(frozen=True)
class BeforeAfter:
    """Pairs of uint8 RGB images, source first.

    `overview` are thumbnails; `detail` is one crop in level-0 px with its top left corner
    `detail_corner_px`; `samples` are (N, S, S, 3) crops spread over the tissue.
    """

    overview: ImagePair
    detail: ImagePair
    detail_corner_px: tuple[int, int]
    samples: ImagePair


def read_before_after(
    source_path: str | Path,
    result_path: str | Path,
    mpp: float,
    corners_px: Sequence[tuple[int, int]],
    *,
    overview_px: int,
    detail_px: int,
) -> BeforeAfter:
    """Read a slide and its normalised self, which has the same geometry.

    Parameters
    ----------
    source_path, result_path
        Slides; `mpp` (um per px) is that of level 0 of both.
    corners_px
        Level-0 top left corners of places with tissue; none: the middle of the slide.
    overview_px, detail_px
        Longest side of the thumbnails and side of the crops.

    The detail is the crop with much tissue of much contrast.

    Raises `SlideError` as `SlideReader` does.
    """
    with SlideReader(source_path, mpp) as before, SlideReader(result_path, mpp) as after:
        overview = (before.thumbnail(overview_px), after.thumbnail(overview_px))
        places = list(corners_px) or [_middle(before, detail_px)]
        size = (detail_px, detail_px)
        sources = np.stack([before.read(x, y, *size) for x, y in places])
        results = np.stack([after.read(x, y, *size) for x, y in places])
    best = int(np.argmax([_interest(crop) for crop in sources]))
    detail = (sources[best], results[best])
    return BeforeAfter(overview, detail, places[best], (sources, results))


def _middle(reader: SlideReader, detail_px: int) -> tuple[int, int]:
    width_px, height_px = reader.size_px
    return max(0, (width_px - detail_px) // 2), max(0, (height_px - detail_px) // 2)


def _interest(crop: RgbImage) -> float:
    """Return the contrast of what is not glass times its share."""
    brightness = crop.mean(axis=2)
    tissue = brightness[brightness < GLASS_BRIGHTNESS]
    return float(tissue.std() * tissue.size / brightness.size) if tissue.size else 0.0
