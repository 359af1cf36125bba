"""Trying an operator on a few tiles of its source: does structure survive, does glass stay?

What is judged are the very pixels that come out: the operator's table, with its interpolation and
with what it does to colours it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.nn.od_torch import LUMINANCE, cie94_square, rgb_to_lab
from stainfuser.stain.operators import ColourOperator, apply_lookup_table
from stainfuser.stain.tile_grid import middle_of

# Tiles that are looked at, spread over those given, and the side of the window in their middle, px.
TRIED_TILES, WINDOW_PX = 8, 400
# Least gradient correlation with the source.
MIN_STRUCTURE = 0.96
# Largest mean change of the glass, CIE94, and what is glass: lighter than this with less chroma.
MAX_GLASS_CHANGE = 1.0
GLASS_LIGHTNESS, GLASS_CHROMA = 88.0, 8.0
# Less glass than this share of the pixels is gaps between cells.
MIN_GLASS_FRACTION = 0.001

Image = NDArray[np.uint8]


class Trial:
    """Windows of some tiles of a source, each (h, w, 3) uint8 RGB, and what is glass in them.

    Called with what `ColourOperator.from_json` reads, it says whether that operator is safe on the
    windows together.
    """

    def __init__(self, images: Sequence[Image]) -> None:
        step = -(-len(images) // TRIED_TILES)
        middles = (middle_of(image, WINDOW_PX) for image in images[step // 2 :: step])
        self._windows = [np.ascontiguousarray(middle) for middle in middles]
        self._before = _centred([_gradients(window) for window in self._windows])
        self._glass, self._glass_lab = _find_glass(self._windows)
        pixels = sum(window[..., 0].size for window in self._windows)
        self._counts = len(self._glass_lab) >= max(MIN_GLASS_FRACTION * pixels, 1)

    def __call__(self, operator: dict[str, Any]) -> bool:
        """Say whether structure survives an operator and glass stays."""
        table = ColourOperator.from_json(operator).lookup_table()
        results = [apply_lookup_table(window, table) for window in self._windows]
        after = _centred([_gradients(result) for result in results])
        least = MIN_STRUCTURE * float(np.sqrt((self._before**2).sum() * (after**2).sum()))
        if float((self._before * after).sum()) < least:
            return False
        if not self._counts:
            return True
        glass = np.concatenate([rgb[is_] for rgb, is_ in zip(results, self._glass, strict=True)])
        change = cie94_square(rgb_to_lab(torch.from_numpy(glass).float()), self._glass_lab).sqrt()
        return float(change.mean()) <= MAX_GLASS_CHANGE


def _find_glass(windows: Sequence[Image]) -> tuple[list[NDArray[np.bool_]], Tensor]:
    """Return (h, w) of every window, what is glass, and (n, 3) the Lab of it all."""
    masks, colours = [], []
    for window in windows:
        lab = rgb_to_lab(torch.from_numpy(window).float())
        glass = (lab[..., 0] > GLASS_LIGHTNESS) & (lab[..., 1:].norm(dim=-1) < GLASS_CHROMA)
        masks.append(glass.numpy())
        colours.append(lab[glass])
    return masks, torch.cat(colours)


def _gradients(rgb: Image) -> NDArray[np.float32]:
    """Return the central differences of the luminance along y and x, in one row."""
    luminance = rgb.astype(np.float32) @ np.array(LUMINANCE, np.float32)
    along = [luminance[2:] - luminance[:-2], luminance[:, 2:] - luminance[:, :-2]]
    return np.concatenate([part.ravel() for part in along])


def _centred(parts: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Join the gradients of all windows, each less its mean."""
    return np.concatenate([p - p.mean(dtype=np.float64) if p.size else p for p in parts])
