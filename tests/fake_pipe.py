"""Stands in for the trained model: a known map of colours, called like the pipeline."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from stainfuser.stain.optical_density import od_to_rgb, quadratic_features, rgb_to_od

# Linear and quadratic part of a recolouring in optical density; white stays white.
LINEAR = np.array([[0.95, -0.05, 0.0], [0.05, 0.8, -0.05], [0.0, 0.1, 1.1]])
SQUARES = np.diag([0.05, -0.03, 0.05])


def recolour(rgb: np.ndarray, white=(255, 255, 255)) -> np.ndarray:
    """Map (..., 3) uint8 RGB smoothly; `white` is mapped to itself."""
    white_od = -np.log((np.array(white) + 1.0) / 256.0)
    features = quadratic_features(rgb_to_od(rgb).astype(np.float64) - white_od)
    mapped = features[..., 1:7] @ np.vstack([LINEAR, SQUARES])
    return od_to_rgb(np.clip(white_od + mapped, 0.0, 5.0))


class FakePipe:
    """Counts its tiles; `change` maps a tile, (H, W, 3) uint8, and its statistics."""

    def __init__(self, change=recolour, mpp: float | None = 0.5) -> None:
        self.config = SimpleNamespace(mpp=mpp)
        self.change, self.tiles, self.slide = change, 0, None

    def encode_target(self, images):
        return images

    def fit_slide(self, images, target):
        return images

    def __call__(self, source, target, *, slide=None, **_):
        self.tiles += len(source)
        self.slide = slide
        return SimpleNamespace(images=np.stack([self.change(tile) for tile in source]))
