"""What a pipeline does with its operator head: fit, apply, and hold a rendering to the same trust.

Images are (3, H, W) float32 RGB in [0, 1]; the head sees them as uint8.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.diffusion.encoding import WINDOW_PX, window_offsets
from stainfuser.diffusion.images import to_tensor, to_uint8
from stainfuser.diffusion.operator_trial import Trial
from stainfuser.nn.class_statistics import ClassStatistics
from stainfuser.nn.operator_head import WEIGHTS_NAME, OperatorHead
from stainfuser.nn.operator_safety import Solution
from stainfuser.nn.stain_statistics import StainStatistics, optical_density, transmitted
from stainfuser.stain.blend import changeable
from stainfuser.stain.operators import ColourOperator, apply_lookup_table

LOGGER = logging.getLogger("stainfuser")
# The head looks at most at this many windows of `WINDOW_PX` along a side of an image: 17 MPix.
WINDOWS_PER_SIDE = 8


@dataclass(frozen=True)
class SlideFit:
    """What a slide's tiles share, so that each is normalised alike; `pipe.fit_slide` makes it.

    Attributes
    ----------
    statistics
        Stain statistics of all sampled tiles together, N = 1.
    solution
        The head's operator from the slide to one target; None if the model has no head.
    """

    statistics: StainStatistics
    solution: Solution | None


def load_head(folder: str | Path) -> OperatorHead:
    """Read an operator head and the stamp that says what made it."""
    from safetensors import safe_open

    head = OperatorHead.from_pretrained(folder)
    with safe_open(Path(folder) / WEIGHTS_NAME, framework="pt") as handle:
        head.stamp = json.loads((handle.metadata() or {}).get("stamp", "{}"))
    return head


def save_head(head: OperatorHead, folder: str | Path) -> None:
    """Write an operator head with the stamp it came with."""
    head.save_pretrained(folder, getattr(head, "stamp", None))


def colour_operator(solution: Solution) -> ColourOperator:
    """Return the operator of a solution, for pixels."""
    return ColourOperator.from_json(solution.diagnostics["operator"])


def windows_of(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return an (H, W, 3) image whole, or windows spread evenly over a very large one."""
    if max(rgb.shape[:2]) <= WINDOWS_PER_SIDE * WINDOW_PX:
        return [rgb]
    tops, lefts = (window_offsets(side, WINDOWS_PER_SIDE) for side in rgb.shape[:2])
    return [rgb[y : y + WINDOW_PX, x : x + WINDOW_PX] for y in tops for x in lefts]


def summarise_each(head: OperatorHead, images: Sequence[Tensor]) -> ClassStatistics:
    """Return the class statistics of N images, each by itself, stacked along the first axis."""
    every = [head.summarise(windows_of(to_uint8(image))) for image in images]
    names = ClassStatistics.__annotations__
    return ClassStatistics(*(torch.stack([getattr(s, n) for s in every]) for n in names))


def fit_tiles(
    head: OperatorHead,
    tiles: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    target: ClassStatistics,
    workers: int = 1,
) -> Solution:
    """Return the operator from tiles of one slide to a target, ``head.summarise`` of its tiles.

    It is tried on some of the tiles and weakened where they would suffer.
    """
    return head.solve(head.summarise(tiles, workers), target, Trial(list(tiles)))


def fit_images(
    head: OperatorHead, images: Sequence[Tensor], targets: ClassStatistics, index: int
) -> Solution:
    """Return one operator for all images together, to the target of number `index`."""
    one = targets.each(lambda part: part[index])
    pieces = [piece for image in images for piece in windows_of(to_uint8(image))]
    return fit_tiles(head, pieces, one)


def apply_operator(image: Tensor, solution: Solution) -> Tensor:
    """Map an image through the operator (rounded to 8 bits before and after)."""
    mapped = apply_lookup_table(to_uint8(image), colour_operator(solution).lookup_table())
    return to_tensor(mapped)


def hold_to_trust(source: Tensor, rendered: Tensor, solution: Solution) -> Tensor:
    """Take of a rendering what is safe: tissue alone, and no more than the head trusts its own.

    Both are (3, H, W); where nothing may change, the source is returned to the bit.
    """
    white = np.array(solution.diagnostics["operator"]["white"])
    white_od = torch.from_numpy(-np.log((white + 1.0) / 256.0)).float()[:, None, None]
    od, rendered_od = optical_density(source), optical_density(rendered)
    relative = (od - white_od.to(od.device)).movedim(0, -1).cpu().numpy()
    tissue = torch.from_numpy(changeable(relative)).to(od)
    strength = (tissue * float(solution.diagnostics["trust"]))[None]
    mixed = transmitted(od + strength * (rendered_od - od))
    return torch.where(strength > 0, mixed, source)


def warn_of_remarks(remarks: Sequence[Sequence[str]]) -> None:
    """Log each remark once, with the number of sources it is about."""
    count = Counter(remark for of_source in remarks for remark in of_source)
    for remark, sources in count.items():
        LOGGER.warning("%d of %d: %s", sources, len(remarks), remark)
