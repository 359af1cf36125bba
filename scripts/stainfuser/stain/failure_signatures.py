"""The ways in which generative stain normalisers are known to fail, looked for in a result.

The StainFuser paper names three: desaturated results, distorted morphology, and adjacent tiles that
disagree. Each detector returns what it measured, its limit, and, if the limit is passed, what is
the likely cause and what to do. The limits lie between images that were provoked to have the
failure and faithful ones; they are for drawing a person's eye, not for judging a method.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from stainfuser.stain.colour_drift import ClassDrift
from stainfuser.stain.invented_structure import invented_structure
from stainfuser.stain.metrics import gradient_correlation
from stainfuser.stain.style_distance import CLASS_NAMES, soft_classes

Images = NDArray[np.uint8]

# Chroma of a tissue class over that of the target's: below it the result is called desaturated.
LEAST_CHROMA_RATIO = 0.6
# A class with less than this share of the pixels has no chroma to speak of.
MIN_CLASS_FRACTION = 0.02
# A tile is distorted below this gradient correlation with its source, or above this share of
# invented detail; a slide, if more than this share of its tiles is.
LEAST_GRADIENT_CORRELATION, MOST_INVENTED = 0.8, 0.25
MOST_DISTORTED_FRACTION = 0.1
# Detail (deviation from the same image blurred so, px), grey levels, below which a tile shows
# nothing but a scanner's noise before and after, and is not judged.
DETAIL_PX, LEAST_DETAIL = 4.0, 4.0
# Steps of colour at borders over those elsewhere (`seams.seam_score`): 1 is none.
MOST_SEAM_SCORE = 1.5
# Colour of a class, OD, that depends on the place; 0.03 is 3 % of light in each channel.
MOST_UNEXPLAINED_OD = 0.03


@dataclass(frozen=True)
class Finding:
    """What a detector measured on a slide.

    `value` is NaN where there was nothing to measure; `is_found` then is False.
    """

    signature: str
    what: str
    value: float
    limit: float
    is_found: bool
    cause: str
    remedy: str

    def to_json(self) -> dict[str, Any]:
        """Return the fields; a value that is not finite becomes None."""
        content = asdict(self)
        content["value"] = round(self.value, 4) if np.isfinite(self.value) else None
        return content


def desaturated(results: Images, target: NDArray[np.uint8]) -> Finding:
    """Tell whether tissue is much greyer than the target's.

    `results` (N, S, S, 3), `target` (H, W, 3) uint8 RGB. The value is the smaller of the ratios of
    mean chroma (CIELAB) of nuclei and of other tissue.
    """
    own, wanted = _class_chroma(results), _class_chroma(target[None])
    ratios = own[1:] / wanted[1:]
    defined = ratios[np.isfinite(ratios)]
    value = float(defined.min()) if len(defined) else float("nan")
    return Finding(
        "desaturated",
        "chroma of tissue, as a share of the target's",
        value,
        LEAST_CHROMA_RATIO,
        value < LEAST_CHROMA_RATIO,
        "the model averages over stains it is unsure of: the target is unlike those it was "
        "trained on, or training was too short; or the model doubts that the slide is H&E and "
        "holds back",
        "look at the slide's confidence and remarks; choose a target with clear H&E of the same "
        "tissue; train longer or on more targets",
    )


def distorted(sources: Images, results: Images) -> Finding:
    """Tell whether structure was changed: edges lost or moved, or detail without a counterpart.

    Both (N, S, S, 3) uint8 RGB. The value is the share of distorted tiles among those that show
    any structure.
    """
    pairs = zip(sources, results, strict=True)
    flags = [_is_distorted(*pair) for pair in pairs if max(map(_detail, pair)) >= LEAST_DETAIL]
    value = float(np.mean(flags)) if flags else float("nan")
    return Finding(
        "distorted morphology",
        "share of tiles whose edges or detail the source does not explain",
        value,
        MOST_DISTORTED_FRACTION,
        value > MOST_DISTORTED_FRACTION,
        "details finer than the latents were lost or painted anew: rendering at too coarse a "
        "resolution, an autoencoder that was not trained on this tissue, or a source out of focus",
        "use normalize.mode operator, which cannot change structure; or render at the model's "
        "resolution with normalize.structure_guard_um above 0",
    )


def disagreeing(seam_score: float | None) -> Finding:
    """Tell whether neighbouring tiles differ in colour, from `seams.seam_score`."""
    value = float("nan") if seam_score is None else float(seam_score)
    return Finding(
        "adjacent tiles disagree",
        "steps of colour at borders of tiles and blocks, over those elsewhere",
        value,
        MOST_SEAM_SCORE,
        value > MOST_SEAM_SCORE,
        "tiles were normalised each by its own statistics or noise, with too little overlap",
        "use normalize.mode operator (one map for the whole slide); or more normalize.overlap_px",
    )


def drifting(drift: Mapping[str, ClassDrift]) -> Finding:
    """Tell whether the colour of a tissue class depends on the place, from `colour_drift`."""
    value = max((part.unexplained_od for part in drift.values()), default=float("nan"))
    return Finding(
        "colour drifts",
        "colour of a tissue class that the source does not explain, OD",
        value,
        MOST_UNEXPLAINED_OD,
        value > MOST_UNEXPLAINED_OD,
        "what is made of a place depends on what lies around it, as where every tile is "
        "normalised by itself",
        "use normalize.mode operator; or let the model see more of the slide at once "
        "(normalize.sample_tiles)",
    )


def _is_distorted(source: NDArray[np.uint8], result: NDArray[np.uint8]) -> bool:
    if gradient_correlation(source, result) < LEAST_GRADIENT_CORRELATION:
        return True
    return invented_structure(source, result) > MOST_INVENTED


def _detail(image: NDArray[np.uint8]) -> float:
    """Return the standard deviation of what is finer than `DETAIL_PX`, grey levels."""
    grey = image.mean(axis=2)
    return float((grey - ndimage.gaussian_filter(grey, DETAIL_PX)).std())


def _class_chroma(images: Images) -> NDArray[np.float64]:
    """Return mean chroma of background, nuclei and other tissue, NaN where rare, (3,)."""
    from skimage.color import rgb2lab

    total, mass, pixels = np.zeros(len(CLASS_NAMES)), np.zeros(len(CLASS_NAMES)), 0
    for image in images:
        sample = image[::2, ::2].reshape(-1, 3)
        classes = soft_classes(sample).astype(np.float64)
        lab = rgb2lab(sample[None])[0]
        total += classes.T @ np.hypot(lab[:, 1], lab[:, 2])
        mass += classes.sum(axis=0)
        pixels += len(sample)
    is_rare = mass < MIN_CLASS_FRACTION * max(pixels, 1)
    return np.where(is_rare, np.nan, total / np.maximum(mass, 1e-9))
