"""Training pairs of the compact diffusion model by neural style transfer between real slides.

A recolouring knows its truth but is of one image; here source and target are different images,
stained by different laboratories, and the truth is what style transfer makes of the source: a
colour operator optimised for Gram losses of a trained network, which cannot touch structure.
Gram matrices carry the tissue's composition, so the target's tiles are those most like the
source's in nuclei and glass, and what comes out in colours no H&E has is not learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.compact_pairs import SET_SIZES, RecolouredPair, Tiles, finished_pair, row
from stainfuser.diffusion.head_data import is_plausible
from stainfuser.diffusion.training_images import (
    TrainingImage,
    draw_scale,
    draw_tile,
    unlikeness,
)
from stainfuser.errors import InputError
from stainfuser.nn.feature_networks import FeatureNetwork, load_feature_network
from stainfuser.nn.gram_style import GramStyle, GramStyleOptions

OPTIONS = GramStyleOptions("lbfgs", iterations=40, content_weight=1.0, style_weight=1.0)
# Target tiles drawn per tile that is wanted, and the largest difference of composition, in shares
# of glass and of nuclei, of the best of them.
CANDIDATES, MAX_UNLIKENESS = 8, 0.12


@dataclass(frozen=True)
class StylePairs:
    """Images whose tiles are stylised after each other, and the network that measures style.

    `share` is the fraction of the examples that is stylised.
    """

    images: Sequence[TrainingImage]
    network: FeatureNetwork
    share: float

    def draw(self, head: Any, tile_px: int, rng: np.random.Generator) -> RecolouredPair | None:
        """Draw one example; None where composition, colour or structure do not fit."""
        source, target = self._draw_tiles(tile_px, rng)
        if target is None:
            return None
        style = GramStyle(self.network, row(target), OPTIONS)
        stylised = style.operator(row(source))
        if not is_plausible(stylised.astype(np.float32)):
            return None
        truth = np.stack(np.split(stylised, len(source), axis=1))
        return finished_pair(source, truth, target, head, rng)

    def _draw_tiles(self, tile_px: int, rng: np.random.Generator) -> tuple[Tiles, Tiles | None]:
        """Draw tiles of one image, and of another those that show the most similar tissue."""
        sources, targets = SET_SIZES[rng.integers(len(SET_SIZES))]
        first, second = (self.images[i] for i in rng.permutation(len(self.images))[:2])
        source, labels = _tiles(first, sources, tile_px, rng)
        others, other_labels = _tiles(second, targets * CANDIDATES, tile_px, rng)
        misses = np.array([unlikeness(own, labels) for own in other_labels])
        chosen = np.argsort(misses, kind="stable")[:targets]
        return source, others[chosen] if misses[chosen].mean() <= MAX_UNLIKENESS else None


def _tiles(
    image: TrainingImage, count: int, tile_px: int, rng: np.random.Generator
) -> tuple[Tiles, NDArray[np.uint8]]:
    """Return tiles of one scale of an image, and their labels."""
    scale = draw_scale(image, rng)
    drawn = [draw_tile(image, scale, tile_px, rng) for _ in range(count)]
    tiles, labels = zip(*drawn, strict=True)
    return np.stack(tiles), np.stack(labels)


def load_style_network(folder: str | Path, weights: str | None, name: str) -> FeatureNetwork:
    """Load the network that measures style; its weights are a file below a folder.

    Raises `InputError` where they are missing or damaged.
    """
    path = Path(folder) / (weights or "")
    if not path.is_file():
        raise InputError(
            path,
            "the weights of the network that measures style are not there",
            "set compact_diffusion.feature_weights, or compact_diffusion.style_share to 0",
        )
    return load_feature_network(name, path)
