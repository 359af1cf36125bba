"""Bridge start `operator_head`: the source as the frozen operator head recolours it.

The head finds one colour operator for a slide and a target; what the diffusion model then learns
is what no colour operator can do. Images keep their structure up to this point, because the
operator maps every pixel by its own colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.diffusion.images import to_tensor, to_uint8
from stainfuser.diffusion.operator_mode import colour_operator, fit_tiles
from stainfuser.nn.stain_statistics import StainStatistics
from stainfuser.stain.operators import ColourOperator, apply_lookup_table

START = "operator_head"


def find_operator(
    head: Any, source: Sequence[NDArray[np.uint8]], target_summary: Any
) -> ColourOperator:
    """Return the operator from tiles of one slide to a target.

    Parameters
    ----------
    head
        `nn.operator_head.OperatorHead`.
    source
        (H, W, 3) uint8 RGB tiles of one slide.
    target_summary
        ``head.summarise`` of the target's images.
    """
    return colour_operator(fit_tiles(head, source, target_summary))


def start_image(operator: ColourOperator, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return where the bridge starts: (H, W, 3) uint8 RGB through the operator's table."""
    return apply_lookup_table(rgb, operator.lookup_table())


def start_statistics(
    own: StainStatistics, operators: Sequence[ColourOperator | None]
) -> StainStatistics:
    """Return the statistics of N starts from those of N sources; None changes nothing.

    The statistics are those of a sample of pixels, and every pixel is mapped by its own colour.
    """
    sample = own.sample.clone()
    for row, operator in enumerate(operators):
        if operator is not None:
            mapped = operator.map_od(sample[row].double().cpu().numpy())
            sample[row] = torch.from_numpy(mapped).to(sample)
    return StainStatistics.of_sample(sample)


def start_tensor(operators: Sequence[ColourOperator], rgb: Tensor) -> Tensor:
    """Return `start_image` of (N, 3, H, W) RGB in [0, 1], each by its own operator."""
    pairs = zip(operators, rgb, strict=True)
    starts = [to_tensor(start_image(operator, to_uint8(image))) for operator, image in pairs]
    return torch.stack(starts).to(rgb)
