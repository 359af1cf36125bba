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
# Least gradient correlation with the source, of all the tiles and of each.
MIN_STRUCTURE = 0.96
# Largest mean change of the glass, CIE94, and what is glass: lighter than this with less chroma.
MAX_GLASS_CHANGE = 1.0
GLASS_LIGHTNESS, GLASS_CHROMA = 88.0, 8.0
# Less glass than this share of a tile is gaps between cells.
MIN_GLASS_FRACTION = 0.0025


class Trial:
    """Windows of some tiles of a source, each (h, w, 3) uint8 RGB, and what is glass in them."""

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        step = -(-len(images) // TRIED_TILES)
        self._windows = [_middle(image) for image in images[step // 2 :: step]]
        self._labs = [rgb_to_lab(window) for window in self._windows]
        self._before = [_gradients(window) for window in self._windows]
        self._glass = [
            (lab[..., 0] > GLASS_LIGHTNESS) & (lab[..., 1:].norm(dim=-1) < GLASS_CHROMA)
            for lab in self._labs
        ]

    def accepts(self, relative: Tensor, white: Tensor) -> bool:
        """Say whether an operator (1, 9, 3) around (1, 3) white is safe on every window."""
        relative, white = relative.float(), white.float()
        return all(self._accepts(i, relative, white) for i in range(len(self._windows)))

    def _accepts(self, index: int, relative: Tensor, white: Tensor) -> bool:
        window, glass = self._windows[index], self._glass[index]
        result = apply_relative_operator(relative, white, window[None])[0].round()
        before, after = self._before[index], _gradients(result)
        norm = (before.square().sum() * after.square().sum()).sqrt()
        if float(norm) > 0 and float((before * after).sum() / norm) < MIN_STRUCTURE:
            return False
        if float(glass.float().mean()) < MIN_GLASS_FRACTION:
            return True
        change = cie94_square(rgb_to_lab(result[glass]), self._labs[index][glass]).sqrt()
        return float(change.mean()) <= MAX_GLASS_CHANGE


def _middle(image: NDArray[np.uint8]) -> Tensor:
    top, left = (max((side - WINDOW_PX) // 2, 0) for side in image.shape[:2])
    window = image[top : top + WINDOW_PX, left : left + WINDOW_PX]
    return torch.from_numpy(np.ascontiguousarray(window)).float()


def _gradients(rgb: Tensor) -> Tensor:
    """Return the central differences of the luminance along y and x, less their mean, float64."""
    luminance = rgb.double() @ rgb.new_tensor(LUMINANCE).double()
    along = [luminance[2:] - luminance[:-2], luminance[:, 2:] - luminance[:, :-2]]
    gradients = torch.cat([part.flatten() for part in along])
    return gradients - gradients.mean() if gradients.numel() else gradients
