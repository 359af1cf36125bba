"""Classical stain normalisation: Ruifrok, Reinhard, Macenko, Vahadane: peers to beat.

The arithmetic of Reinhard 2001 and Macenko 2009 is torchstain's (numpy backend, its own settings),
as others run it; that of the other two is in `ruifrok` and `vahadane`. What is added is an answer
where the methods have none: a tile without two stains, or without colour contrast, comes back as it
was, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.ruifrok import RuifrokNormalizer
from stainfuser.stain.vahadane import VahadaneNormalizer

CLASSICAL_METHODS = ("reinhard", "macenko")
# What a model is measured beside.
BENCHMARK_METHODS = (*CLASSICAL_METHODS, "vahadane")
ALL_METHODS = ("ruifrok", *BENCHMARK_METHODS)
# Below this standard deviation, grey levels, a channel's spread is noise and is not divided by.
MIN_SPREAD = 0.5
# Macenko's white level and the optical density below which torchstain leaves a pixel out.
MACENKO_WHITE, MACENKO_BETA = 240, 0.15
# Fewest stained pixels that two stain directions are estimated from.
MIN_STAINED_PX = 64
# How a method says that it has no answer.
UNDEFINED = (FloatingPointError, ValueError, np.linalg.LinAlgError)


class ClassicalResult(NamedTuple):
    """A (H, W, 3) uint8 RGB image; with `is_fallback` the method is undefined, it is the source."""

    image: NDArray[np.uint8]
    is_fallback: bool


Normalizer = Callable[[NDArray[np.uint8]], ClassicalResult]


def reinhard(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give `source` the mean and standard deviation of `target` in CIELAB.

    (H, W, 3) uint8 RGB; the images may differ in size. Where it is undefined (a blank or grey
    image) a copy of the source is returned; `fit_classical` tells when.
    """
    return fit_classical("reinhard", target)(source).image


def macenko(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give the stains of `source` the directions and strengths of those of `target`.

    (H, W, 3) uint8 RGB; the images may differ in size. Where it is undefined (hardly any stained
    pixel) a copy of the source is returned; `fit_classical` tells when.
    """
    return fit_classical("macenko", target)(source).image


def fit_classical(method: str, target: NDArray[np.uint8]) -> Normalizer:
    """Fit a method of `ALL_METHODS` to a target once; call the result on every source.

    Raises `ValueError` for an unknown method.
    """
    if method not in ALL_METHODS:
        raise ValueError(f"unknown method {method!r}, expected one of {ALL_METHODS}")
    is_usable = _has_colour_spread if method == "reinhard" else _has_stain
    engine = _fitted_engine(method, target) if is_usable(target) else None

    def normalize(source: NDArray[np.uint8]) -> ClassicalResult:
        if engine is None or not is_usable(source):
            return ClassicalResult(source.copy(), True)
        try:
            with np.errstate(divide="raise", invalid="raise", over="ignore"):
                output = engine.normalize(source)
        except UNDEFINED:
            return ClassicalResult(source.copy(), True)
        return ClassicalResult(output[0] if isinstance(output, tuple) else output, False)

    return normalize


def _fitted_engine(method: str, target: NDArray[np.uint8]) -> Any | None:
    """Return a normaliser fitted to `target`, None where the fit is undefined."""
    own = {"vahadane": VahadaneNormalizer, "ruifrok": RuifrokNormalizer}.get(method)
    if own is not None:
        try:
            return own(target)
        except UNDEFINED:
            return None
    # The numpy modules are named directly: torchstain's factories would import torch.
    from torchstain.numpy.normalizers import NumpyMacenkoNormalizer, NumpyReinhardNormalizer

    engine = NumpyReinhardNormalizer() if method == "reinhard" else NumpyMacenkoNormalizer()
    try:
        with np.errstate(divide="raise", invalid="raise"):
            engine.fit(target)
    except UNDEFINED:
        return None
    return engine


def _has_colour_spread(image: NDArray[np.uint8]) -> bool:
    """Say whether lightness and both colour axes of an image vary beyond rounding."""
    red, green, blue = np.moveaxis(image.astype(np.float32), -1, 0)
    return all(float(axis.std()) >= MIN_SPREAD for axis in (green, red - green, green - blue))


def _has_stain(image: NDArray[np.uint8]) -> bool:
    """Say whether enough pixels are dense in all channels, and differ, for stain directions."""
    od = -np.log((image.reshape(-1, 3).astype(np.float32) + 1.0) / MACENKO_WHITE)
    stained = od[np.all(od >= MACENKO_BETA, axis=1)]
    return len(stained) >= MIN_STAINED_PX and bool(stained.std(axis=0).max() > 1e-3)
