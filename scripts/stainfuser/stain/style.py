"""Class-guided style transfer: a closed-form, structure-preserving stain transfer between tiles.

What makes stain transfer hard is composition: statistics of a whole image say as much about how
many nuclei it shows as about how it was stained. Here nuclei are matched with nuclei and stroma
with stroma. In optical density each class of the source is carried to the same class of the target
by the Monge-Kantorovich map of its Gaussian (Pitie and Kokaram 2007); one quadratic map is then
fitted to these class maps by least squares in which every class counts alike, so that the result
is one smooth function of a pixel's own colour. Where a class is rare the fit leans on a map of
gains per channel, and glass stays glass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stainfuser.stain.blend import glass_to_tissue
from stainfuser.stain.optical_density import od_to_rgb, quadratic_features, rgb_to_od
from stainfuser.stain.style_distance import soft_classes

Array = NDArray[np.float64]

# Pixels of a tile, on a regular grid, that its look is measured on.
SAMPLE_PIXELS = 4096
# Fraction of the pixels at which a class is trusted by half.
HALF_TRUST_FRACTION = 0.06
# Fraction of glass at which the target's white is believed by half; below it is a pale cell.
KNOWN_WHITE_FRACTION = 0.03
# Below these fractions of the pixels there is no tissue, and a class is not there.
MIN_TISSUE_FRACTION, ABSENT_FRACTION = 0.01, 1e-3
# Difference between the channels of a white, optical density, at which it is doubted by half: glass
# is grey, pale cytoplasm is not.
TINTED_WHITE_OD = 0.07
# Mean red optical densities of both tissue classes closer than this: one kind of tissue in view.
MIN_CLASS_CONTRAST_OD = 0.06
# Added to variances, OD^2: about the noise of a JPEG.
NOISE_VARIANCE = 3e-4
# Contrast within a class may change by this factor, per channel by a little more, and differ from
# the change of the mean by `MAX_GAIN_EXCESS`: a bland tile must not be stretched into grain.
MAX_CLASS_GAIN, MAX_GAIN, MAX_GAIN_EXCESS = 2.5, 3.0, 1.6
# Weight of glass in the fit, a tissue class having 1.
GLASS_WEIGHT = 0.5
# Ridge towards the gains per channel: constant, linear and quadratic coefficients.
RIDGE = np.array([5e-5] + [5e-4] * 3 + [5e-3] * 6)
BACKGROUND = 0


@dataclass(frozen=True)
class Look:
    """What is known of a tile's stain.

    Attributes
    ----------
    od, classes
        (P, 3) optical densities of sampled pixels and their (P, 3) membership in background,
        haematoxylin and eosin.
    mass, mean, covariance
        Per class, (3,) fraction of the pixels, (3, 3) and (3, 3, 3) in optical density.
    white
        (3,) optical density of the glass.
    """

    od: Array
    classes: Array
    mass: Array
    mean: Array
    covariance: Array
    white: Array


@dataclass(frozen=True)
class StyleMap:
    """A smooth map of colours, applied to each pixel on its own.

    Attributes
    ----------
    coefficients
        (10, 3): `quadratic_features` of a pixel's optical density → optical density.
    white, new_white
        (3,) optical density of the glass before and after; paler pixels follow it.
    """

    coefficients: Array
    white: Array
    new_white: Array

    def __call__(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Map (..., 3) uint8 RGB."""
        od = rgb_to_od(rgb)
        stained = quadratic_features(od) @ self.coefficients.astype(np.float32)
        glass = od + (self.new_white - self.white).astype(np.float32)
        tissue = glass_to_tissue(od - self.white.astype(np.float32))[..., None]
        return od_to_rgb(glass + tissue * (stained - glass))


def class_guided(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `source` in the stain of `target`.

    (H, W, 3) uint8 RGB each; sizes may differ. A source without tissue, or a target without,
    comes back unchanged. The same images give the same bytes.
    """
    return fit_style(measure_look(source), measure_look(target))(source)


def measure_look(image: NDArray[np.uint8]) -> Look:
    """Measure the stain of a (H, W, 3) uint8 RGB image on at most `SAMPLE_PIXELS` pixels."""
    step = max(1, int(np.ceil(np.sqrt(image.shape[0] * image.shape[1] / SAMPLE_PIXELS))))
    pixels = image[step // 2 :: step, step // 2 :: step].reshape(-1, 3)
    od = rgb_to_od(pixels).astype(np.float64)
    classes = _join_alike(od, soft_classes(pixels).astype(np.float64))
    moments = [_moments(od, classes[:, index]) for index in range(3)]
    return Look(
        od=od,
        classes=classes,
        mass=np.array([m[0] for m in moments]),
        mean=np.stack([m[1] for m in moments]),
        covariance=np.stack([m[2] for m in moments]),
        white=_white(od, classes[:, BACKGROUND]),
    )


def fit_style(source: Look, target: Look) -> StyleMap:
    """Fit the map that carries the stain of `source` to that of `target` (see the module)."""
    new_white = source.white + _trust_in_white(target) * (target.white - source.white)
    if min(look.mass[1:].sum() for look in (source, target)) < MIN_TISSUE_FRACTION:
        return StyleMap(_affine(np.zeros(3), np.ones(3)), source.white, source.white)
    prior = _gain_map(source, target)
    features = quadratic_features(source.od)
    by_prior = features @ prior
    gram, moment = np.diag(RIDGE), np.zeros((10, 3))
    for index in range(3):
        if index == BACKGROUND:
            wanted, trust = source.od + (new_white - source.white), GLASS_WEIGHT
        else:
            wanted, trust = _class_target(source, target, index, by_prior), 1.0
        trust *= source.mass[index] / (source.mass[index] + HALF_TRUST_FRACTION)
        share = source.classes[:, index] / max(source.classes[:, index].sum(), 1e-9)
        weighted = features * (trust * share)[:, None]
        # einsum sums in one fixed order; BLAS would depend on the number of threads.
        gram = gram + np.einsum("ni,nj->ij", weighted, features)
        moment = moment + np.einsum("ni,nj->ij", weighted, wanted - by_prior)
    coefficients = prior + np.linalg.solve(gram, moment)
    return StyleMap(np.round(coefficients, 7), source.white, new_white)


def _class_target(source: Look, target: Look, index: int, by_prior: Array) -> Array:
    """Return where the class map sends each pixel, drawn to the prior for a rare class: (P, 3)."""
    rarer = min(source.mass[index], target.mass[index])
    trust = rarer / (rarer + HALF_TRUST_FRACTION)
    transport = monge_kantorovich(source.covariance[index], target.covariance[index])
    carried = target.mean[index] + (source.od - source.mean[index]) @ transport
    return trust * carried + (1.0 - trust) * by_prior


def monge_kantorovich(source: Array, target: Array) -> Array:
    """Return the symmetric (3, 3) matrix that carries one covariance to another at least cost.

    Its eigenvalues, the gains along its axes, are kept within `MAX_CLASS_GAIN`.
    """
    noise = NOISE_VARIANCE * np.eye(3)
    root, inverse_root = _power(source + noise, 0.5), _power(source + noise, -0.5)
    matrix = inverse_root @ _power(root @ (target + noise) @ root, 0.5) @ inverse_root
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return (vectors * np.clip(values, 1 / MAX_CLASS_GAIN, MAX_CLASS_GAIN)) @ vectors.T


def _gain_map(source: Look, target: Look) -> Array:
    """Return the (10, 3) map that matches mean and spread of tissue per channel.

    A tissue class that only one of the images shows is left out.
    """
    common = (source.mass[1:] > ABSENT_FRACTION) & (target.mass[1:] > ABSENT_FRACTION)
    (source_mean, source_std), (target_mean, target_std) = (
        _mixture(look, common if common.any() else ~common) for look in (source, target)
    )
    by_mean = (target_mean + 0.05) / (source_mean + 0.05)
    gain = (target_std + 0.01) / (source_std + 0.01)
    gain = np.clip(gain, by_mean / MAX_GAIN_EXCESS, by_mean * MAX_GAIN_EXCESS)
    gain = np.clip(gain, 1 / MAX_GAIN, MAX_GAIN)
    return _affine(target_mean - gain * source_mean, gain)


def _mixture(look: Look, chosen: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return mean and standard deviation, (3,) each, of the chosen tissue classes together."""
    shares = look.mass[1:] * chosen
    shares = shares / max(shares.sum(), 1e-9)
    means, variances = look.mean[1:], np.diagonal(look.covariance[1:], axis1=1, axis2=2)
    mean = shares @ means
    return mean, np.sqrt(shares @ (variances + np.square(means - mean)))


def _trust_in_white(look: Look) -> float:
    """Return how far the white of an image is believed to be its glass, in [0, 1]."""
    rarity = KNOWN_WHITE_FRACTION / max(float(look.mass[BACKGROUND]), 1e-9)
    tint = float(np.ptp(look.white)) / TINTED_WHITE_OD
    return 1.0 / ((1.0 + rarity**2) * (1.0 + tint**4))


def _join_alike(od: Array, classes: Array) -> Array:
    """Give all tissue to eosin where the two tissue classes hardly differ."""
    mass = classes.sum(axis=0) + 1e-9
    red = od[:, 0] @ classes / mass
    if red[1] - red[2] >= MIN_CLASS_CONTRAST_OD:
        return classes
    joined = np.zeros_like(classes)
    joined[:, 0], joined[:, 2] = classes[:, 0], classes[:, 1] + classes[:, 2]
    return joined


def _affine(offset: Array, gain: Array) -> Array:
    coefficients = np.zeros((10, 3))
    coefficients[0], coefficients[1:4] = offset, np.diag(gain)
    return coefficients


def _moments(od: Array, weights: Array) -> tuple[float, Array, Array]:
    """Return mass as a fraction of the pixels, mean (3,) and covariance (3, 3)."""
    total = max(weights.sum(), 1e-9)
    mean = np.einsum("n,nj->j", weights, od) / total
    centred = od - mean
    return total / len(od), mean, np.einsum("n,ni,nj->ij", weights, centred, centred) / total


def _white(od: Array, background: Array) -> Array:
    """Return the optical density of the glass: a pale pixel's where no glass is in view."""
    glass = od[background > 0.5]
    if len(glass) >= 8:
        return np.quantile(glass, 0.3, axis=0)
    return np.minimum(np.quantile(od, 0.01, axis=0), 0.08)


def _power(matrix: Array, exponent: float) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.maximum(values, 1e-9) ** exponent) @ vectors.T
