"""Laboratories that no training has seen, drawn at random, for benchmarks.

The named `LABORATORIES` are few and some are trained on. These are drawn anew: a protocol between
two named ones, each dye's uptake, spectrum and binding moved from there, and a scanner of its own.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.phantom_laboratories import LABORATORIES, Laboratory

# Standard deviations: of log uptake (per dye, then per dye and substance), of peaks in nm.
DYE_SPREAD, UPTAKE_SPREAD = 0.25, 0.12
PEAK_SPREAD_NM = 5.0


def draw_laboratory(rng: np.random.Generator) -> Laboratory:
    """Draw a laboratory: protocol and scanner."""
    names = sorted(LABORATORIES)
    first, second = (LABORATORIES[names[i]] for i in rng.permutation(len(names))[:2])
    share = float(rng.uniform(0.2, 0.8))
    uptake = np.exp((1 - share) * _log(first.uptake) + share * _log(second.uptake))
    uptake = uptake * np.exp(rng.normal(0, DYE_SPREAD, (4, 1)))
    uptake = uptake * np.exp(rng.normal(0, UPTAKE_SPREAD, (4, 5)))
    gamma = rng.uniform(0.52, 0.62) + rng.normal(0, 0.015, 3)
    white = rng.uniform(238, 246) + rng.normal(0, 2.5, 3)
    haematoxylin_nm, eosin_nm = (
        _between(first, second, share, name) + rng.normal(0, PEAK_SPREAD_NM)
        for name in ("haematoxylin_nm", "eosin_nm")
    )
    return Laboratory(
        uptake=np.where(uptake < 1e-3, 0.0, uptake),
        capacity=tuple(
            float(a * (b / a) ** share * np.exp(rng.normal(0, 0.1)))
            for a, b in zip(first.capacity, second.capacity, strict=True)
        ),
        competition=float(rng.uniform(0.05, 0.25)),
        haematoxylin_nm=float(haematoxylin_nm),
        eosin_nm=float(eosin_nm),
        sensor_nm=tuple(np.array([609.0, 539.0, 464.0]) + rng.normal(0, 6.0, 3)),
        lamp_warmth=float(rng.uniform(-0.06, 0.16)),
        blur_um=tuple(rng.uniform(0.3, 0.42) + rng.uniform(0, 0.05, 3)),
        sharpening=float(rng.uniform(0.2, 0.8)),
        glare=float(rng.uniform(0.01, 0.045)),
        noise=float(rng.uniform(0.011, 0.02)),
        crosstalk=_crosstalk(rng),
        gamma=tuple(gamma),
        contrast=float(rng.uniform(0.0, 0.25)),
        black_point=float(rng.uniform(2.0, 10.0)),
        white_point=tuple(np.clip(white, 232.0, 249.0)),
        jpeg=None if rng.random() < 0.3 else (int(rng.integers(75, 93)), "422"),
    )


def with_scanner_optics(laboratory: Laboratory, scanner: Laboratory) -> Laboratory:
    """Return a laboratory's colours seen as sharply and as noisily as another's scanner sees.

    What differs between the two is then stain and colour alone, which is all that a normaliser
    may change.
    """
    return dataclasses.replace(
        laboratory,
        blur_um=scanner.blur_um,
        sharpening=scanner.sharpening,
        glare=scanner.glare,
        noise=scanner.noise,
        jpeg=scanner.jpeg,
    )


def _log(uptake: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(uptake, 1e-4))


def _between(first: Laboratory, second: Laboratory, share: float, name: str) -> float:
    return (1 - share) * getattr(first, name) + share * getattr(second, name)


def _crosstalk(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a mixing of the channels near none, rows summing to 1."""
    mixing = np.eye(3) + rng.normal(0.0, 0.025, (3, 3))
    return mixing / mixing.sum(axis=1, keepdims=True)
