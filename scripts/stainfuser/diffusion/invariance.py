"""Does a model's result depend on the order of tiles, on the size of batches, or on the run?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]


def measure_invariance(
    pipe: Any, tiles: Images, target_image: NDArray[np.uint8], mode: str
) -> dict[str, int]:
    """Return the largest difference, grey levels, that each change makes: 0 is none.

    Parameters
    ----------
    pipe
        A `StainFuserPipeline`.
    tiles
        (N, S, S, 3) uint8 RGB of one slide, N >= 1.
    target_image
        (H, W, 3) uint8 RGB.
    mode
        "operator" or "render".

    Returns
    -------
    dict
        `tile_order`: the tiles come in reversed order; `batch_size`: one by one in place of all at
        once; `repeat`: target encoded, slide learned and tiles normalised a second time.
    """
    base = _normalized(pipe, tiles, target_image, mode)
    changed = {
        "tile_order": _normalized(pipe, tiles[::-1], target_image, mode, fit_on=tiles)[::-1],
        "batch_size": _normalized(pipe, tiles, target_image, mode, batch_size=1),
        "repeat": _normalized(pipe, tiles, target_image, mode),
    }
    return {name: int(np.abs(base.astype(int) - images).max()) for name, images in changed.items()}


def _normalized(
    pipe: Any,
    tiles: Images,
    target_image: NDArray[np.uint8],
    mode: str,
    fit_on: Images | None = None,
    batch_size: int = 8,
) -> Images:
    encoded = pipe.encode_target(target_image)
    slide = pipe.fit_slide(tiles if fit_on is None else fit_on, encoded)
    options = {"output_type": "np", "slide": slide, "mode": mode, "batch_size": batch_size}
    return np.asarray(pipe(tiles, encoded, generator=0, **options).images)
