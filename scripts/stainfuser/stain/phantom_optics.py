"""How a laboratory sees a section: staining, light through twelve bands of wavelength, scanner.

Light is integrated over the spectrum before it becomes RGB, dyes saturate and compete, glare adds
light and the scanner bends the result, so that Beer-Lambert's law holds at each wavelength and
nowhere in the RGB image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.phantom_fields import Field, Upsampler
from stainfuser.stain.phantom_laboratories import Laboratory
from stainfuser.stain.phantom_tissue import Section

WAVELENGTHS_NM = np.linspace(410.0, 685.0, 12)
BAND_PX = 64
JPEG_ROWS_PX = 1024


def _peak(centre_nm: float, width_nm: float) -> NDArray[np.float64]:
    return np.exp(-0.5 * ((WAVELENGTHS_NM - centre_nm) / width_nm) ** 2)


INK_SPECTRA = {
    "blue": 2.6 * _peak(620, 55) + 1.1 * _peak(550, 40) + 0.15,
    "green": 2.2 * _peak(655, 45) + 1.3 * _peak(430, 35) + 0.25,
    "black": 1.9 + 0.3 * _peak(560, 90),
}


def absorption_spectra(laboratory: Laboratory, pen: str) -> NDArray[np.float64]:
    """Return absorbances (5, 12): haematoxylin, eosin, haem, counterstain (peak 1), and ink."""
    h, e = laboratory.haematoxylin_nm, laboratory.eosin_nm
    peak = _peak
    haematoxylin = peak(h, 52) + 0.30 * peak(h - 130, 45) + 0.12
    eosin = peak(e, 19) + 0.45 * peak(e - 32, 24) + 0.05 * peak(430, 40)
    haem = 0.9 * peak(418, 26) + 0.62 * peak(541, 14) + 0.6 * peak(574, 10) + 0.02
    counterstain = peak(442, 38) + 0.15 * peak(510, 40)
    return np.stack([haematoxylin, eosin, haem, counterstain, INK_SPECTRA[pen]])


def sensor_weights(laboratory: Laboratory) -> NDArray[np.float64]:
    """Return (3, 12) light times sensitivity of red, green and blue; every row sums to 1."""
    centres = np.array(laboratory.sensor_nm)[:, None]
    widths = np.array([32.0, 34.0, 28.0])[:, None]
    response = np.exp(-0.5 * ((WAVELENGTHS_NM - centres) / widths) ** 2)
    warmth = 1 + laboratory.lamp_warmth * (WAVELENGTHS_NM - 550) / 140
    weights = response * warmth
    weights[weights < 1e-3 * weights.max(axis=1, keepdims=True)] = 0.0
    return weights / weights.sum(axis=1, keepdims=True)


def render(section: Section, laboratory: Laboratory, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Stain and scan a section; `rng` is the noise of the sensor.

    Returns (H, W, 3) uint8 RGB as the scanner's software keeps it, its JPEG artefacts included.
    """
    mpp = section.grid.mpp
    spectra = absorption_spectra(laboratory, section.pen)
    light = _transmitted(section.amounts, spectra, laboratory)
    _focus(light, laboratory, mpp)
    _add_glare(light, laboratory, mpp)
    image = _expose(light, laboratory, rng)
    return compressed(image, *laboratory.jpeg) if laboratory.jpeg else image


def bind(amounts: NDArray[np.float32], laboratory: Laboratory) -> NDArray[np.float32]:
    """Return concentrations (5, h, W) of four bound dyes and the ink, of substances (6, h, W).

    Binding saturates (Langmuir's isotherm) and haematoxylin keeps eosin out.
    """
    uptake = laboratory.uptake.astype(np.float32)
    dyes = np.empty((5, *amounts.shape[1:]), np.float32)
    for dye, row in zip(dyes, uptake, strict=False):
        np.multiply(amounts[0], row[0], out=dye)
        for share, substance in zip(row[1:], amounts[1:5], strict=True):
            if share:
                dye += share * substance
    for dye, capacity in zip(dyes, laboratory.capacity, strict=False):
        dye /= 1 + dye / np.float32(capacity)
    dyes[1] /= 1 + np.float32(laboratory.competition) * dyes[0]
    dyes[4] = amounts[5]
    return dyes


def _transmitted(
    amounts: NDArray[np.float32], spectra: NDArray[np.float64], laboratory: Laboratory
) -> NDArray[np.float32]:
    """Return light (3, H, W), 1 on empty glass: Beer-Lambert at each wavelength, then the sum."""
    weights = sensor_weights(laboratory)
    light = np.zeros((3, *amounts.shape[1:]), np.float32)
    for start in range(0, amounts.shape[1], BAND_PX):
        rows = slice(start, min(start + BAND_PX, amounts.shape[1]))
        if not amounts[:, rows].any():
            light[:, rows] = 1.0
            continue
        dyes = bind(amounts[:, rows], laboratory)
        for absorbance, weight in zip(spectra.T, weights.T, strict=True):
            passed = _passed(dyes, absorbance)
            for channel, share in zip(light, weight, strict=True):
                if share:
                    channel[rows] += np.float32(share) * passed
    return light


def _passed(dyes: NDArray[np.float32], absorbance: NDArray[np.float64]) -> Field:
    """Return the light (h, W) of one wavelength that dyes (5, h, W) let through."""
    density = np.float32(-absorbance[0]) * dyes[0]
    for dye, value in zip(dyes[1:], absorbance[1:], strict=True):
        if value > 1e-3:
            density -= np.float32(value) * dye
    return np.exp(density, out=density)


def _focus(light: NDArray[np.float32], laboratory: Laboratory, mpp: float) -> None:
    """Blur each channel by the optics, in place; then sharpen as the scanner's software does."""
    for channel, sigma_um in enumerate(laboratory.blur_um):
        sigma = sigma_um / mpp
        radius = max(1, int(np.ceil(2.5 * sigma)))
        for axis in (0, 1):
            light[channel] = ndimage.gaussian_filter1d(
                light[channel], sigma, axis=axis, mode="nearest", radius=radius
            )
        if laboratory.sharpening:
            soft = ndimage.uniform_filter(light[channel], 3, mode="nearest")
            soft -= light[channel]
            light[channel] -= np.float32(laboratory.sharpening) * soft
            np.maximum(light[channel], 0.004, out=light[channel])


def _add_glare(light: NDArray[np.float32], laboratory: Laboratory, mpp: float) -> None:
    """Mix in light scattered from the surroundings, in place: dark spots on bright glass fade."""
    step = 16
    _, height, width = light.shape
    share = np.float32(laboratory.glare)
    for channel in light:
        mean = ndimage.uniform_filter(channel[::4, ::4], 5, mode="nearest")[2::4, 2::4]
        wide = ndimage.gaussian_filter(mean, 60.0 / mpp / step, mode="nearest")
        upsampler = Upsampler(wide.shape, (height, width), step)
        for start in range(0, height, BAND_PX):
            rows = slice(start, min(start + BAND_PX, height))
            channel[rows] *= 1 - share
            channel[rows] += share * upsampler.block(wide, rows, slice(0, width))


def _expose(
    light: NDArray[np.float32], laboratory: Laboratory, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Turn light (3, H, W) into (H, W, 3) uint8: shot noise, crosstalk, curve, white point."""
    _, height, width = light.shape
    image = np.empty((height, width, 3), np.uint8)
    mixing = laboratory.crosstalk.astype(np.float32)
    curves = [_curve_table(laboratory, channel) for channel in range(3)]
    last = len(curves[0]) - 1
    for start in range(0, height, BAND_PX):
        rows = slice(start, min(start + BAND_PX, height))
        band = light[:, rows]
        noise = rng.standard_normal(band.shape, dtype=np.float32)
        noise *= np.sqrt(np.float32(laboratory.noise) ** 2 * (0.15 + 0.85 * np.abs(band)))
        band += noise
        for channel in range(3):
            mixed = sum(mixing[channel, source] * band[source] for source in range(3))
            index = np.clip(mixed * np.float32(last / 1.1), 0, last).astype(np.int32)
            image[rows, :, channel] = curves[channel][index]
    return image


def _curve_table(laboratory: Laboratory, channel: int) -> NDArray[np.uint8]:
    """Return the scanner's response to light of 0 to 1.1 as 16,384 grey values."""
    light = np.linspace(0.0, 1.1, 16384)
    gamma, contrast = laboratory.gamma[channel], laboratory.contrast
    value = light**gamma
    clipped = np.clip(value, 0, 1)
    value = (1 - contrast) * value + contrast * clipped**2 * (3 - 2 * clipped)
    black = laboratory.black_point
    value = black + (laboratory.white_point[channel] - black) * value
    return np.clip(np.rint(value), 0, 255).astype(np.uint8)


def compressed(image: NDArray[np.uint8], quality: int, subsampling: str) -> NDArray[np.uint8]:
    """Return the image after JPEG compression and decompression, rows of blocks at a time."""
    import imagecodecs

    restored = np.empty_like(image)
    for start in range(0, len(image), JPEG_ROWS_PX):
        rows = slice(start, start + JPEG_ROWS_PX)
        encoded = imagecodecs.jpeg8_encode(
            np.ascontiguousarray(image[rows]), level=quality, subsampling=subsampling
        )
        restored[rows] = imagecodecs.jpeg8_decode(encoded)
    return restored
