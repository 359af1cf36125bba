"""Trying an operator on a few tiles of its source: does structure survive, does glass stay?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.nn.od_torch import (
    LUMINANCE,
    apply_relative_operator,
    cie94_square,
    rgb_to_lab,
)

# Tiles that are looked at, spread over those given, and the side of the window in their middle, px.
TRIED_TILES, WINDOW_PX = 8, 400
# Least gradient correlation with the source.
MIN_STRUCTURE = 0.96
# Largest mean change of the glass, CIE94, and what is glass: lighter than this with less chroma.
MAX_GLASS_CHANGE = 1.0
GLASS_LIGHTNESS, GLASS_CHROMA = 88.0, 8.0
# Less glass than this share of the pixels is gaps between cells.
MIN_GLASS_FRACTION = 0.0025


class Trial:
    """Windows of some tiles of a source, each (h, w, 3) uint8 RGB, and what is glass in them."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        step = -(-len(images) // TRIED_TILES)
        self._windows = [_looked_at(_middle(image)) for image in images[step // 2 :: step]]
        self._pixels = sum(glass.numel() for *_, glass in self._windows)

    def accepts(self, relative: Tensor, white: Tensor) -> bool:
        """Say whether an operator (1, 9, 3) around (1, 3) white is safe on the windows together."""
        relative, white = relative.float(), white.float()
        products, change, glass_px = torch.zeros(3, dtype=torch.float64), 0.0, 0
        for window, lab, before, glass in self._windows:
            result = apply_relative_operator(relative, white, window[None])[0].round()
            after = _gradients(result)
            sums = [(before * after).sum(), before.square().sum(), after.square().sum()]
            products += torch.stack(sums).double()
            if glass.any():
                glass_px += int(glass.sum())
                change += float(cie94_square(rgb_to_lab(result[glass]), lab[glass]).sqrt().sum())
        together, before_square, after_square = products.tolist()
        if together < MIN_STRUCTURE * (before_square * after_square) ** 0.5:
            return False
        counts = glass_px >= MIN_GLASS_FRACTION * self._pixels
        return not counts or change <= MAX_GLASS_CHANGE * glass_px


def _looked_at(window: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the window with its Lab, its gradients and what is glass."""
    lab = rgb_to_lab(window)
    glass = (lab[..., 0] > GLASS_LIGHTNESS) & (lab[..., 1:].norm(dim=-1) < GLASS_CHROMA)
    return window, lab, _gradients(window), glass


def _middle(image: NDArray[np.uint8]) -> Tensor:
    top, left = (max((side - WINDOW_PX) // 2, 0) for side in image.shape[:2])
    window = image[top : top + WINDOW_PX, left : left + WINDOW_PX]
    return torch.from_numpy(np.ascontiguousarray(window)).float()


def _gradients(rgb: Tensor) -> Tensor:
    """Return the central differences of the luminance along y and x, less their mean."""
    luminance = rgb @ rgb.new_tensor(LUMINANCE)
    along = [luminance[2:] - luminance[:-2], luminance[:, 2:] - luminance[:, :-2]]
    gradients = torch.cat([part.flatten() for part in along])
    return gradients - gradients.mean() if gradients.numel() else gradients
