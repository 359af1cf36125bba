"""The frame of a phantom and the coarse grid its plan is drawn on."""

from __future__ import annotations

import dataclasses

import numpy as np

from stainfuser.errors import ConfigError
from stainfuser.stain.phantom_fields import Field, fractal_noise, smooth_noise

# What dyes bind to, in the order of a section's amounts; the ink brings its own colour.
SUBSTANCES = ("chromatin", "cytoplasm", "collagen", "blood", "mucin", "ink")
CHROMATIN, CYTOPLASM, COLLAGEN, BLOOD, MUCIN, INK = range(6)

COARSE_UM = 2.0
LEAST_SIDE_PX = 256
MPP_RANGE = (0.2, 1.0)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A square frame and its coarse grid.

    Attributes
    ----------
    side_px
        Side of the full-resolution frame, px.
    mpp
        Resolution of the frame, um per px.
    """

    side_px: int
    mpp: float

    @property
    def step(self) -> int:
        """Full-resolution px per coarse px."""
        return max(1, round(COARSE_UM / self.mpp))

    @property
    def coarse_um(self) -> float:
        """Side of a coarse px, um."""
        return self.step * self.mpp

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the coarse grid."""
        side = -(-self.side_px // self.step)
        return side, side

    def noise(self, rng: np.random.Generator, scale_um: float, octaves: int = 1) -> Field:
        """Return unit-variance noise on the coarse grid, features `scale_um` um wide."""
        if octaves == 1:
            return smooth_noise(rng, self.shape, scale_um / self.coarse_um)
        return fractal_noise(rng, self.shape, scale_um / self.coarse_um, octaves)


def checked_grid(key: str, side_px: int, mpp: float) -> Grid:
    """Return the grid of a frame whose side the configuration key `key` gives.

    Raises
    ------
    ConfigError
        The frame is too small for tissue, or its resolution too far from a slide's.
    """
    if side_px < LEAST_SIDE_PX:
        raise ConfigError(key, f"{side_px} px hold no tissue", f"use at least {LEAST_SIDE_PX}")
    if not MPP_RANGE[0] <= mpp <= MPP_RANGE[1]:
        wrong = f"tissue cannot be drawn at {mpp} um per px"
        raise ConfigError("demo.mpp", wrong, f"use {MPP_RANGE[0]} to {MPP_RANGE[1]}")
    return Grid(side_px, mpp)
