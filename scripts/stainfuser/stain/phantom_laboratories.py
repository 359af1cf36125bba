"""Imaginary laboratories: how they stain and what they scan with."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Laboratory:
    """One laboratory's staining protocol and scanner.

    Attributes
    ----------
    uptake
        (4, 5): dye (haematoxylin, eosin, haem, counterstain) bound per amount of chromatin,
        cytoplasm, collagen, blood, mucin.
    capacity
        (4,) concentration at which binding of each dye saturates.
    competition
        How strongly bound haematoxylin keeps eosin out.
    haematoxylin_nm, eosin_nm
        Absorption peaks; they shift with pH, ripening and the brand.
    sensor_nm
        Centres of the red, green and blue sensitivities.
    lamp_warmth
        Slope of the lamp's spectrum, 0 is flat.
    blur_um
        Standard deviation of the optical blur in red, green and blue.
    sharpening
        Gain of the scanner's unsharp mask.
    glare
        Fraction of the light that is scattered over the field.
    noise
        Standard deviation of the sensor noise on empty glass, relative to its light.
    crosstalk
        (3, 3) mixing of the channels, rows sum to 1.
    gamma, contrast
        Exponent of each channel's curve, and weight of an S-shaped curve.
    black_point, white_point
        Grey value of no light; RGB of empty glass.
    jpeg
        Quality and chroma subsampling of the scanner's own compression; None: uncompressed.
    """

    uptake: NDArray[np.float64]
    capacity: tuple[float, float, float, float]
    competition: float
    haematoxylin_nm: float
    eosin_nm: float
    sensor_nm: tuple[float, float, float]
    lamp_warmth: float
    blur_um: tuple[float, float, float]
    sharpening: float
    glare: float
    noise: float
    crosstalk: NDArray[np.float64]
    gamma: tuple[float, float, float]
    contrast: float
    black_point: float
    white_point: tuple[float, float, float]
    jpeg: tuple[int, str] | None


LABORATORIES = {
    # The look to normalise to: blue-violet nuclei, clear pink, sharp, hardly any artefact.
    "harbour": Laboratory(
        uptake=np.array(
            [
                [2.75, 0.20, 0.08, 0.02, 0.55],
                [0.95, 1.75, 1.45, 2.60, 0.10],
                [0.00, 0.00, 0.00, 1.00, 0.00],
                [0.06, 0.05, 0.03, 0.20, 0.02],
            ]
        ),
        capacity=(7.0, 6.0, 6.0, 3.0),
        competition=0.10,
        haematoxylin_nm=575.0,
        eosin_nm=528.0,
        sensor_nm=(612.0, 540.0, 462.0),
        lamp_warmth=0.0,
        blur_um=(0.30, 0.27, 0.30),
        sharpening=0.35,
        glare=0.015,
        noise=0.012,
        crosstalk=np.array([[1.06, -0.05, -0.01], [-0.03, 1.07, -0.04], [0.0, -0.05, 1.05]]),
        gamma=(0.56, 0.56, 0.56),
        contrast=0.10,
        black_point=4.0,
        white_point=(244.0, 243.0, 245.0),
        jpeg=None,
    ),
    # Pale: a progressive, blue haematoxylin and hardly any eosin; soft lens, much glare.
    "cedar": Laboratory(
        uptake=np.array(
            [
                [1.75, 0.20, 0.11, 0.03, 0.50],
                [0.45, 1.00, 0.78, 1.60, 0.05],
                [0.00, 0.00, 0.00, 0.80, 0.00],
                [0.02, 0.02, 0.02, 0.10, 0.00],
            ]
        ),
        capacity=(5.0, 3.0, 5.0, 3.0),
        competition=0.25,
        haematoxylin_nm=586.0,
        eosin_nm=522.0,
        sensor_nm=(606.0, 546.0, 466.0),
        lamp_warmth=-0.05,
        blur_um=(0.46, 0.40, 0.44),
        sharpening=0.25,
        glare=0.05,
        noise=0.014,
        crosstalk=np.array([[0.98, 0.03, -0.01], [0.03, 0.95, 0.02], [-0.01, 0.04, 0.97]]),
        gamma=(0.60, 0.57, 0.54),
        contrast=0.0,
        black_point=10.0,
        white_point=(238.0, 239.0, 242.0),
        jpeg=(80, "420"),
    ),
    # Dark: overstained regressive haematoxylin with a violet ground, eosin with phloxine.
    "fjord": Laboratory(
        uptake=np.array(
            [
                [3.30, 0.72, 0.34, 0.08, 0.80],
                [1.40, 2.10, 1.75, 3.00, 0.25],
                [0.00, 0.00, 0.00, 1.10, 0.00],
                [0.10, 0.10, 0.06, 0.30, 0.04],
            ]
        ),
        capacity=(4.2, 3.6, 6.0, 3.0),
        competition=0.05,
        haematoxylin_nm=571.0,
        eosin_nm=533.0,
        sensor_nm=(618.0, 536.0, 456.0),
        lamp_warmth=0.08,
        blur_um=(0.36, 0.33, 0.40),
        sharpening=0.9,
        glare=0.01,
        noise=0.016,
        crosstalk=np.array([[1.04, -0.03, -0.01], [-0.03, 1.05, -0.02], [-0.01, -0.03, 1.04]]),
        gamma=(0.62, 0.62, 0.66),
        contrast=0.25,
        black_point=2.0,
        white_point=(240.0, 236.0, 240.0),
        jpeg=(70, "420"),
    ),
    # Warm: brownish, fading haematoxylin, strong eosin, saffron in collagen, a yellow lamp.
    "mesa": Laboratory(
        uptake=np.array(
            [
                [2.10, 0.24, 0.08, 0.02, 0.30],
                [1.10, 1.75, 1.75, 3.00, 0.10],
                [0.00, 0.00, 0.00, 1.00, 0.00],
                [0.30, 0.12, 0.28, 0.40, 0.06],
            ]
        ),
        capacity=(6.0, 4.5, 6.0, 1.6),
        competition=0.15,
        haematoxylin_nm=574.0,
        eosin_nm=519.0,
        sensor_nm=(600.0, 532.0, 470.0),
        lamp_warmth=0.15,
        blur_um=(0.34, 0.34, 0.42),
        sharpening=0.5,
        glare=0.025,
        noise=0.022,
        crosstalk=np.array([[1.02, -0.02, 0.0], [0.02, 1.0, -0.02], [0.01, 0.03, 0.96]]),
        gamma=(0.52, 0.55, 0.58),
        contrast=0.15,
        black_point=6.0,
        white_point=(246.0, 243.0, 237.0),
        jpeg=(85, "422"),
    ),
}


def find_laboratory(key: str, name: str) -> Laboratory:
    """Return the laboratory that the configuration key `key` names.

    Raises
    ------
    ConfigError
        There is none of this name.
    """
    if name not in LABORATORIES:
        known = ", ".join(sorted(LABORATORIES))
        raise ConfigError(key, f"{name!r} is no laboratory", f"use one of {known}")
    return LABORATORIES[name]
