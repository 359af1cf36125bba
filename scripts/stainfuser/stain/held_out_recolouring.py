"""Recolourings that nothing is trained on: for tests and benchmarks only.

Two families, both built otherwise than `recolouring` (which works in optical density and is what
models learn from), so that no model meets its own training family in its benchmark:

- `ScannerMap`: what lies between two scanners, as their makers describe it: a tone curve per
  channel, a 3 x 3 matrix in linear light, and a colour grade (hue and chroma by lightness) in CIE
  Lab. White stays white.
- `SpectralMap`: what lies between two laboratories: dyes of other absorption spectra and amounts,
  seen by another sensor, integrated over wavelength; Beer-Lambert's law holds at each wavelength
  and not in the RGB image.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.optical_density import od_to_rgb, rgb_to_od
from stainfuser.stain.stain_directions import REFERENCE_DIRECTIONS, stain_directions

FAMILIES = ("scanner", "spectral")
# Few nodes: the tone curves of scanners are smooth.
CURVE_NODES = 4
# The mean CIEDE2000 a map makes is drawn from this range: the H&E images of a dozen laboratories
# and scanners at hand differ by 6 to 29 (5th to 95th percentile, median 14) in `region_bands`.
DE_RANGE, DE_TOLERANCE = (6.0, 22.0), 1.0
# Maps of many strengths are drawn, the first near enough to the wanted difference is taken.
STRENGTHS, ATTEMPTS = (0.5, 2.2), 60
# Least gradient correlation of a map with its source: no scanner makes tissue vanish.
MIN_STRUCTURE = 0.96
# Stain directions more alike than this cannot be unmixed without blowing up noise.
MAX_COSINE = 0.97
TRACE = 0.1
WAVELENGTHS_NM = np.linspace(400.0, 700.0, 31)


@dataclass(frozen=True)
class ScannerMap:
    """`curve_in`, `curve_out` (3, CURVE_NODES) on coded RGB in [0, 1]; `matrix` (3, 3) on linear
    light, rows sum to 1; `hue_rad` and `chroma` (2,): at black and at white.
    """

    curve_in: NDArray[np.float64]
    matrix: NDArray[np.float64]
    curve_out: NDArray[np.float64]
    hue_rad: NDArray[np.float64]
    chroma: NDArray[np.float64]

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Recolour (..., 3) uint8 RGB."""
        from skimage.color import lab2rgb, rgb2lab

        colours, place = _distinct(rgb)
        coded = _through(self.curve_in, colours / 255.0)
        linear = np.clip((coded**2.2) @ self.matrix.T, 0.0, 1.0)
        lab = rgb2lab(_through(self.curve_out, linear ** (1 / 2.2))[None])[0]
        share = lab[:, :1] / 100.0
        angle = self.hue_rad[0] * (1 - share) + self.hue_rad[1] * share
        gain = self.chroma[0] * (1 - share) + self.chroma[1] * share
        a, b = gain * lab[:, 1:2], gain * lab[:, 2:]
        turned = [np.cos(angle) * a - np.sin(angle) * b, np.sin(angle) * a + np.cos(angle) * b]
        with warnings.catch_warnings():
            # Colours out of the gamut are clipped, as a scanner does.
            warnings.simplefilter("ignore", UserWarning)
            graded = lab2rgb(np.concatenate([lab[:, :1], *turned], axis=1)[None])[0]
        return np.rint(np.clip(graded, 0, 1) * 255).astype(np.uint8)[place].reshape(rgb.shape)


@dataclass(frozen=True)
class SpectralMap:
    """What lies between two laboratories.

    Attributes
    ----------
    directions
        (2, 3) stain directions of the source.
    dyes_before, dyes_after
        (2, 31) absorbances.
    sensor_before, sensor_after
        (3, 31), rows sum to 1.
    amount, binding
        (2,): the new amount is about ``amount * old ** binding``.
    residual
        Share, in [0, 1], of what the two dyes do not explain that is kept.
    """

    directions: NDArray[np.float64]
    dyes_before: NDArray[np.float64]
    dyes_after: NDArray[np.float64]
    sensor_before: NDArray[np.float64]
    sensor_after: NDArray[np.float64]
    amount: NDArray[np.float64]
    binding: NDArray[np.float64]
    residual: float

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Recolour (..., 3) uint8 RGB."""
        colours, place = _distinct(rgb)
        od = rgb_to_od(colours.astype(np.uint8)).astype(np.float64)
        amounts = np.clip(od @ np.linalg.pinv(self.directions), 0.0, None)
        before = _seen(amounts, self.dyes_before, self.sensor_before)
        # The exponent acts beyond a trace of dye only: its slope at none is finite.
        bound = amounts * ((amounts + TRACE) / (1 + TRACE)) ** (self.binding - 1)
        after = _seen(self.amount * bound, self.dyes_after, self.sensor_after)
        return od_to_rgb(np.clip(after + self.residual * (od - before), 0, 5.5))[place].reshape(
            rgb.shape
        )


def draw_held_out(
    rgb: NDArray[np.uint8], family: str, rng: np.random.Generator
) -> ScannerMap | SpectralMap:
    """Draw a map of one of `FAMILIES` that changes an image visibly and leaves it plausible.

    Raises `ValueError` for an unknown family.
    """
    from stainfuser.stain.metrics import ciede2000

    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}, expected one of {FAMILIES}")
    directions = stain_directions(rgb_to_od(rgb[::2, ::2])).astype(np.float64)
    if directions[0] @ directions[1] > MAX_COSINE:
        directions = REFERENCE_DIRECTIONS.astype(np.float64)
    sketch, wanted = rgb[::4, ::4], rng.uniform(*DE_RANGE)
    best, best_miss = None, np.inf
    for attempt in range(ATTEMPTS):
        strength = rng.uniform(*STRENGTHS) * 0.98**attempt
        drawn = (
            _draw_scanner(rng, strength)
            if family == "scanner"
            else _draw_spectral(directions, rng, strength)
        )
        result = drawn(sketch)
        miss = abs(ciede2000(sketch, result) - wanted)
        if miss < best_miss and _is_plausible(sketch, result):
            best, best_miss = drawn, miss
        if best_miss < DE_TOLERANCE:
            break
    # An image that no drawn map leaves plausible gets the mildest.
    return best or (
        _draw_scanner(rng, 0.3) if family == "scanner" else _draw_spectral(directions, rng, 0.3)
    )


def _draw_scanner(rng: np.random.Generator, strength: float) -> ScannerMap:
    matrix = np.eye(3) + rng.normal(0, 0.10 * strength, (3, 3))
    matrix /= matrix.sum(axis=1, keepdims=True)
    return ScannerMap(
        _draw_curves(rng, strength),
        matrix,
        _draw_curves(rng, strength),
        rng.normal(0, 0.16 * strength, 2),
        np.exp(rng.normal(0, 0.20 * strength, 2)),
    )


def _draw_curves(rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    """Return three rising curves through (0, 0 or a little more) and (1, 1)."""
    shared = rng.normal(0, 0.25 * strength, CURVE_NODES - 1)
    steps = np.exp(shared + rng.normal(0, 0.12 * strength, (3, CURVE_NODES - 1)))
    rising = np.cumsum(np.hstack([np.zeros((3, 1)), steps]), axis=1)
    black = np.abs(rng.normal(0, 0.02 * strength))
    return black + (1 - black) * rising / rising[:, -1:]


def _draw_spectral(
    directions: NDArray[np.float64], rng: np.random.Generator, strength: float
) -> SpectralMap:
    sensor = np.array([605.0, 540.0, 455.0])
    before = _dyes(585.0, 525.0, 1.0)
    after = _dyes(
        585 + rng.normal(0, 14 * strength),
        525 + rng.normal(0, 7 * strength),
        np.exp(rng.normal(0, 0.2 * strength)),
    )
    # Amounts are unmixed in RGB; one unit of them absorbs as much before in RGB as in the spectrum.
    for row, dye in enumerate(before):
        unit = _seen(np.eye(2)[row : row + 1] * 0.5, np.stack([dye, dye]), _sensor(sensor, 0.0))
        scale = 0.5 * np.linalg.norm(directions[row]) / np.linalg.norm(unit)
        before[row] *= scale
        after[row] *= scale
    return SpectralMap(
        directions,
        before,
        after,
        _sensor(sensor, 0.0),
        _sensor(sensor + rng.normal(0, 8 * strength, 3), rng.normal(0, 0.2 * strength)),
        np.exp(rng.normal(0, 0.25 * strength) + rng.normal(0, 0.25 * strength, 2)),
        np.exp(rng.normal(0, 0.12 * strength, 2)),
        rng.uniform(0.7, 1.0),
    )


def _dyes(haematoxylin_nm: float, eosin_nm: float, broadening: float) -> NDArray[np.float64]:
    """Return (2, 31) absorbances of two dyes with their shoulders."""
    h = _band(haematoxylin_nm, 55 * broadening) + 0.35 * _band(haematoxylin_nm - 140, 50) + 0.10
    e = _band(eosin_nm, 22 * broadening) + 0.40 * _band(eosin_nm - 33, 26) + 0.04
    return np.stack([h, e])


def _sensor(centres_nm: NDArray[np.float64], warmth: float) -> NDArray[np.float64]:
    response = np.exp(-0.5 * ((WAVELENGTHS_NM - centres_nm[:, None]) / 32.0) ** 2)
    response *= 1 + warmth * (WAVELENGTHS_NM - 550) / 150
    return response / response.sum(axis=1, keepdims=True)


def _band(centre_nm: float, width_nm: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * ((WAVELENGTHS_NM - centre_nm) / width_nm) ** 2)


def _seen(
    amounts: NDArray[np.float64], dyes: NDArray[np.float64], sensor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (n, 3) OD of (n, 2) amounts of dye, the light summed over wavelengths."""
    return -np.log(np.maximum(np.exp(-amounts @ dyes) @ sensor.T, 1 / 256))


def _through(curves: NDArray[np.float64], coded: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply one monotone cubic curve per channel."""
    from scipy.interpolate import PchipInterpolator

    nodes = np.linspace(0, 1, CURVE_NODES)
    columns = [PchipInterpolator(nodes, curve)(coded[:, i]) for i, curve in enumerate(curves)]
    return np.clip(np.stack(columns, axis=1), 0.0, 1.0)


def _distinct(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return each colour once, (n, 3), and where it stands among the pixels."""
    wide = rgb.reshape(-1, 3).astype(np.uint32)
    packed, place = np.unique(
        (wide[:, 0] << 16) | (wide[:, 1] << 8) | wide[:, 2], return_inverse=True
    )
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1)
    return colours.astype(np.float64), place.ravel()


def _is_plausible(source: NDArray[np.uint8], rgb: NDArray[np.uint8]) -> bool:
    """Say whether H&E could look so: exposed, not green, and with the tissue as clear as before."""
    from stainfuser.stain.metrics import gradient_correlation

    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    clipped = ((rgb < 3) | (rgb > 253)).mean(axis=(0, 1)).max()
    magenta = (red + blue) / 2 - green
    keeps = gradient_correlation(source, rgb) >= MIN_STRUCTURE
    return bool(
        60 < rgb.mean() < 245
        and clipped < 0.7
        and rgb.std() > 8
        and magenta.mean() > 4
        and (magenta < -6).mean() < 0.02
        and keeps
    )
