"""One smooth colour operator per slide, fitted to what the model made of the slide's tiles.

In optical density (OD) relative to the slide's background, the operator is a quadratic map without
a constant term: white stays white, whatever was fitted. It is fitted by ridge regression towards
gains per channel with Huber weights (iteratively reweighted least squares), so that single
structures the model invented do not move it. Colours unlike any it was fitted on (pigment, red
ink) get the gains alone: a quadratic must not be trusted beyond its data. Green and blue ink stays
as it is. Every pixel is mapped by its own colour, so structure is kept by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from stainfuser.stain.blend import changeable, glass_to_tissue, smoothstep
from stainfuser.stain.optical_density import od_to_rgb, quadratic_features, rgb_to_od

# Source and model output are compared in boxes of this side: finer detail is not the operator's
# business, and pixel noise in the regressors would flatten its slope.
BOX_PX = 4
# About as many boxes along the side of a tile: 1,024 of a tile are plenty.
BOXES_PER_SIDE = 32
LUT_NODES = 33
RIDGE = 1e-3
HUBER_SIGMAS = 1.345  # 95 % efficiency on normal errors (Huber 1981)
HUBER_STEPS = 8
# Mahalanobis distances between which trust in the quadratic fades: 3 to 5 sigma.
TRUSTED_SIGMAS, DISTRUSTED_SIGMAS = 3.0, 5.0
MAX_OD = 5.545


@dataclass(frozen=True)
class ColourOperator:
    """A map of colours, applied to each pixel on its own.

    Attributes
    ----------
    white
        (3,) background colour of the slide, RGB in [0, 255]; it is mapped to itself.
    coefficients
        (9, 3): `quadratic_features` without the constant, OD relative to `white`.
    gains
        (3,): factor per channel, for colours far from those fitted.
    centre, precision
        (3,) mean and (3, 3) inverse covariance of the fitted colours, relative OD.
    """

    white: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    gains: NDArray[np.float64]
    centre: NDArray[np.float64]
    precision: NDArray[np.float64]

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map (..., 3) uint8 RGB exactly; `lookup_table` is the fast way."""
        return od_to_rgb(self.map_od(rgb_to_od(rgb).astype(np.float64)))

    def map_od(self, od: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 3) absolute optical densities."""
        white_od = _white_od(self.white)
        relative = od - white_od
        quadratic = quadratic_features(relative)[..., 1:] @ self.coefficients
        offset = relative - self.centre
        sigmas = np.sqrt(np.einsum("...i,ij,...j->...", offset, self.precision, offset))
        trust = 1.0 - smoothstep(sigmas, TRUSTED_SIGMAS, DISTRUSTED_SIGMAS)[..., None]
        mapped = trust * quadratic + (1.0 - trust) * relative * self.gains
        tissue = changeable(relative)[..., None]
        return np.clip(white_od + relative + tissue * (mapped - relative), 0.0, MAX_OD)

    def lookup_table(self) -> ImageFilter.Color3DLUT:
        """Return the operator as a table of 33^3 nodes for Pillow (interpolated trilinearly)."""
        values = np.linspace(0.0, 255.0, LUT_NODES)
        blue, green, red = np.meshgrid(values, values, values, indexing="ij")
        od = -np.log((np.stack([red, green, blue], axis=-1) + 1.0) / 256.0)
        rgb = 256.0 * np.exp(-self.map_od(od)) - 1.0
        table = np.clip(rgb / 255.0, 0.0, 1.0).astype(np.float32)
        return ImageFilter.Color3DLUT(LUT_NODES, table.reshape(-1, 3))

    def to_json(self) -> dict[str, Any]:
        """Return the operator as plain numbers."""
        return {name: getattr(self, name).tolist() for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Rebuild an operator from `to_json`."""
        return cls(**{name: np.array(content[name]) for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class OperatorFit:
    """An operator and how well it stands for the model on tiles it was not fitted on.

    Attributes
    ----------
    residual_de
        Median CIEDE2000 between operator and model output over tissue, in boxes of `BOX_PX`; of
        the tiles' medians, the median. Infinite if no tile holds tissue.
    residual_de_range
        95 % bootstrap interval of `residual_de` over tiles.
    residual_px_de
        The same, pixel by pixel: it holds what the model changed in fine detail, too.
    tiles
        Tiles with tissue that were used.
    held_out
        False if there was one tile only, and the residual is that of the fit.
    """

    operator: ColourOperator
    residual_de: float
    residual_de_range: tuple[float, float]
    residual_px_de: float
    tiles: int
    held_out: bool


def apply_lookup_table(rgb: NDArray[np.uint8], table: ImageFilter.Color3DLUT) -> NDArray[np.uint8]:
    """Map (H, W, 3) uint8 RGB through a table."""
    return np.asarray(Image.fromarray(rgb).filter(table))


def fit_operator(
    source: NDArray[np.floating], rendered: NDArray[np.floating], white: NDArray[np.floating]
) -> ColourOperator:
    """Fit an operator to pairs of optical densities, each (N, 3), absolute.

    `white` is the slide's background colour, (3,) RGB in [0, 255]. With fewer than 10 pairs the
    operator is the identity.
    """
    white = np.asarray(white, np.float64)
    x, y = (np.asarray(od, np.float64) - _white_od(white) for od in (source, rendered))
    if len(x) < 10:
        prior = np.eye(9, 3)
        return ColourOperator(white, prior, np.ones(3), np.zeros(3), np.eye(3))
    gains, coefficients = _fit_robustly(x, y)
    centre = x.mean(axis=0)
    spread = _gram(x - centre, x - centre, np.ones(len(x))) / len(x) + 1e-4 * np.eye(3)
    precision = np.linalg.inv(spread)
    # Rounded so that the last bits of a sum, which differ between machines, do not reach a pixel.
    fitted = [np.round(part, 9) for part in (coefficients, gains, centre, precision)]
    return ColourOperator(white, *fitted)


def fit_and_validate(
    source: NDArray[np.uint8],
    rendered: NDArray[np.uint8],
    white: NDArray[np.floating],
    rng: np.random.Generator,
    folds: int = 4,
) -> OperatorFit:
    """Fit an operator on tiles and measure it on tiles left out in turn.

    Parameters
    ----------
    source, rendered
        (N, S, S, 3) uint8 RGB: tiles of the slide and what the model made of them.
    white
        (3,) background colour of the slide, RGB in [0, 255].
    rng
        Draws the bootstrap samples.
    folds
        Parts the tiles are divided into; each is measured with an operator fitted on the others.
    """
    pairs = [tissue_boxes(s, r, white) for s, r in zip(source, rendered, strict=True)]
    usable = [i for i, (x, _) in enumerate(pairs) if len(x) >= 10]
    if not usable:
        return OperatorFit(
            fit_operator(*_join(pairs), white), np.inf, (np.inf,) * 2, np.inf, 0, True
        )
    folds = min(folds, len(usable))
    box_de, px_de = [], []
    for fold in range(folds):
        held_out = usable[fold::folds]
        rest = [i for i in usable if i not in held_out] or held_out
        operator = fit_operator(*_join([pairs[i] for i in rest]), white)
        box_de += [_median_de(operator, *pairs[i]) for i in held_out]
        px_de += [
            _median_de(operator, *tissue_boxes(source[i], rendered[i], white, box_px=1))
            for i in held_out
        ]
    operator = fit_operator(*_join([pairs[i] for i in usable]), white)
    low, high = _bootstrap_median(np.array(box_de), rng)
    residual, residual_px = float(np.median(box_de)), float(np.nanmedian(px_de))
    return OperatorFit(operator, residual, (low, high), residual_px, len(usable), folds > 1)


def tissue_boxes(
    source: NDArray[np.uint8],
    rendered: NDArray[np.uint8],
    white: NDArray[np.floating],
    box_px: int = BOX_PX,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean OD of corresponding boxes of two tiles, glass left out: twice (N, 3)."""
    step_px = max(BOX_PX, source.shape[0] // BOXES_PER_SIDE)
    boxes = [_box_means(rgb_to_od(rgb), box_px, step_px) for rgb in (source, rendered)]
    is_tissue = glass_to_tissue(boxes[0] - _white_od(white)) > 0.5
    return boxes[0][is_tissue], boxes[1][is_tissue]


def _box_means(od: NDArray[np.float32], box_px: int, step_px: int) -> NDArray[np.float64]:
    rows, columns = od.shape[0] // step_px, od.shape[1] // step_px
    boxes = od[: rows * step_px, : columns * step_px]
    boxes = boxes.reshape(rows, step_px, columns, step_px, 3)[:, :box_px, :, :box_px]
    return boxes.mean(axis=(1, 3), dtype=np.float64).reshape(-1, 3)


def _fit_robustly(
    x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return gains (3,) and coefficients (9, 3)."""
    features = quadratic_features(x)[:, 1:]
    weights = np.ones(len(x))
    for _ in range(HUBER_STEPS):
        gains = (weights[:, None] * x * y).sum(axis=0) / (weights[:, None] * x * x).sum(axis=0)
        coefficients = _ridge(
            features, y, weights, prior=np.vstack([np.diag(gains), np.zeros((6, 3))])
        )
        error = np.sqrt(np.square(y - features @ coefficients).sum(axis=1))
        limit = HUBER_SIGMAS * 1.4826 * np.median(error) + 1e-6
        weights = np.minimum(1.0, limit / np.maximum(error, 1e-12))
    return gains, coefficients


def _ridge(
    features: NDArray[np.float64],
    y: NDArray[np.float64],
    weights: NDArray[np.float64],
    prior: NDArray[np.float64],
) -> NDArray[np.float64]:
    gram = _gram(features, features, weights)
    penalty = RIDGE * np.diag(np.diag(gram))
    return prior + np.linalg.solve(gram + penalty, _gram(features, y - features @ prior, weights))


def _gram(
    a: NDArray[np.float64], b: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    # einsum sums in one fixed order; BLAS would depend on the number of threads.
    return np.einsum("ni,nj->ij", a * weights[:, None], b)


def _join(
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


def _median_de(
    operator: ColourOperator, source: NDArray[np.float64], rendered: NDArray[np.float64]
) -> float:
    from stainfuser.stain.metrics import ciede2000_map

    if not len(source):
        return float("nan")
    mapped, wanted = od_to_rgb(operator.map_od(source)), od_to_rgb(rendered)
    return float(np.median(ciede2000_map(mapped[None], wanted[None])))


def _bootstrap_median(
    values: NDArray[np.float64], rng: np.random.Generator, samples: int = 1000
) -> tuple[float, float]:
    drawn = values[rng.integers(0, len(values), (samples, len(values)))]
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return float(low), float(high)


def _white_od(white: NDArray[np.floating]) -> NDArray[np.float64]:
    return -np.log((np.asarray(white, np.float64) + 1.0) / 256.0)
