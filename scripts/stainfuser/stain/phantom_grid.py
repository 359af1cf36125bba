"""The frame of a phantom and the coarse grid its plan is drawn on."""

from __future__ import annotations

import dataclasses

import numpy as np

from stainfuser.stain.phantom_fields import Field, fractal_noise, smooth_noise

COARSE_UM = 2.0


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
