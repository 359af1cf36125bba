"""Random realistic recolourings: exact (source, target, truth) triplets from real tissue.

Two tiles A and B of one slide carry one stain. A recolouring T applied to both gives a source A,
a target T(B) that shows other tissue, and the truth T(A), exact to the last bit and without any
method's judgement in it. So that no method is flattered, T is broader than every model tried
here: a change of stain vectors with what they do not explain kept, a tone curve per channel, a
quadratic map and smooth local bends, one after the other in optical density.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import od_to_rgb, quadratic_features, rgb_to_od

# Mean and spread of stain directions over 60 H&E images of a dozen laboratories and scanners.
HAEMATOXYLIN, HAEMATOXYLIN_SPREAD = (0.57, 0.72, 0.40), (0.07, 0.05, 0.08)
EOSIN, EOSIN_SPREAD = (0.22, 0.82, 0.48), (0.12, 0.07, 0.12)
BENDS = 3
MAX_OD = 5.5
# Draws until one is realistic; each is a little milder than the last.
ATTEMPTS = 40


@dataclass(frozen=True)
class Recolouring:
    """A smooth change of colour, applied to each pixel on its own.

    Attributes
    ----------
    swap
        (3, 3): optical densities x swap = the same stains with other vectors and strengths.
    gamma
        (3,): exponent per channel.
    curve
        (10, 3): coefficients of `quadratic_features`.
    bends
        (BENDS, 7): centre (3), displacement (3) and width of Gaussian bumps, optical density.
    """

    swap: NDArray[np.float64]
    gamma: NDArray[np.float64]
    curve: NDArray[np.float64]
    bends: NDArray[np.float64]

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Recolour (..., 3) uint8 RGB."""
        colours, place = np.unique(_pack(rgb), return_inverse=True)
        recoloured = od_to_rgb(self.apply_to_od(rgb_to_od(_unpack(colours))))
        return recoloured[place.reshape(rgb.shape[:-1])]

    def apply_to_od(self, od: NDArray[np.floating]) -> NDArray[np.float64]:
        """Recolour (..., 3) optical densities."""
        out = np.clip(od.astype(np.float64) @ self.swap, 1e-6, MAX_OD) ** self.gamma
        out = np.clip(quadratic_features(out) @ self.curve, 0.0, MAX_OD)
        for bend in self.bends:
            square = np.square(out - bend[:3]).sum(axis=-1, keepdims=True)
            out = out + bend[3:6] * np.exp(-0.5 * square / bend[6] ** 2)
        return np.clip(out, 0.0, MAX_OD)

    def to_vector(self) -> NDArray[np.float64]:
        """Return all parameters as one vector, (VECTOR_LENGTH,) float64."""
        return np.concatenate([getattr(self, field.name).ravel() for field in fields(self)])

    @classmethod
    def from_vector(cls, vector: NDArray[np.float64]) -> Self:
        """Rebuild a recolouring from `to_vector`."""
        parts = np.split(np.asarray(vector, np.float64), np.cumsum([9, 3, 30]))
        return cls(
            parts[0].reshape(3, 3), parts[1], parts[2].reshape(10, 3), parts[3].reshape(-1, 7)
        )


VECTOR_LENGTH = 9 + 3 + 30 + 7 * BENDS


def draw_recolouring(
    directions: NDArray[np.floating], tile: NDArray[np.uint8], rng: np.random.Generator
) -> Recolouring:
    """Draw a recolouring whose result on `tile` a laboratory could have made.

    Parameters
    ----------
    directions
        (2, 3) stain directions of the slide (see `stain_directions`).
    tile
        (H, W, 3) uint8 RGB; results that are too light, dark, flat or saturated are drawn again,
        each time a little milder.
    """
    for attempt in range(ATTEMPTS):
        candidate = random_recolouring(directions, rng, strength=0.95**attempt)
        if is_realistic(candidate(tile[::4, ::4])):
            return candidate
    return random_recolouring(directions, rng, strength=0.0)


def random_recolouring(
    directions: NDArray[np.floating], rng: np.random.Generator, strength: float = 1.0
) -> Recolouring:
    """Draw one recolouring; `strength` 0 leaves only the change of stain vectors."""
    swap = _random_swap(np.asarray(directions, np.float64), rng)
    gamma = np.exp(rng.normal(0, 0.10 * strength) + rng.normal(0, 0.08 * strength, 3))
    curve = np.zeros((10, 3))
    curve[0] = np.abs(rng.normal(0, 0.03 * strength, 3))
    curve[1:4] = np.diag(np.exp(rng.normal(0, 0.12 * strength, 3)))
    curve[1:4] += rng.normal(0, 0.06 * strength, (3, 3))
    curve[4:] = rng.normal(0, 0.035 * strength, (6, 3))
    centres = rng.uniform(0.1, 1.3, (BENDS, 3))
    displacements = rng.normal(0, 0.07 * strength, (BENDS, 3))
    widths = rng.uniform(0.3, 0.7, (BENDS, 1))
    return Recolouring(swap, gamma, curve, np.hstack([centres, displacements, widths]))


def is_realistic(rgb: NDArray[np.uint8]) -> bool:
    """Say whether a tile could be H&E: not dark, pale, flat, clipped, green or all blue."""
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    clipped = ((rgb < 4) | (rgb > 253)).mean()
    greenish = (green > np.maximum(red, blue) + 2).mean()
    magenta = ((red + blue) / 2 - green).mean()
    is_exposed = 70 < rgb.mean() < 242 and clipped < 0.3 and rgb.std() > 8
    is_blue = (blue - red).mean() > 50
    return bool(is_exposed and greenish < 0.02 and magenta > 8 and not is_blue)


def _random_swap(directions: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (3, 3): old concentrations with new vectors and strengths, plus the residual."""
    new = np.stack(
        [
            _random_direction(HAEMATOXYLIN, HAEMATOXYLIN_SPREAD, rng),
            _random_direction(EOSIN, EOSIN_SPREAD, rng),
        ]
    )
    strengths = np.exp(rng.normal(0, 0.25, 2) + rng.normal(0, 0.15))
    unmix = np.linalg.pinv(directions)
    residual = np.eye(3) - unmix @ directions
    return unmix @ (strengths[:, None] * new) + residual * rng.uniform(0.5, 1.1)


def _random_direction(mean: tuple, spread: tuple, rng: np.random.Generator) -> NDArray[np.float64]:
    direction = np.clip(rng.normal(mean, spread), 0.02, None)
    return direction / np.linalg.norm(direction)


def _pack(rgb: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return each colour as one number, so that equal colours are recoloured once."""
    wide = rgb.astype(np.uint32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def _unpack(packed: NDArray[np.uint32]) -> NDArray[np.uint8]:
    return np.stack([packed >> 16, packed >> 8, packed], axis=-1).astype(np.uint8)
