"""Instance labels as 16-bit PNG files: 0, or the number of the object a px belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.errors import InputError
from stainfuser.io.images import check_file


def read_labels(path: str | Path) -> NDArray[np.int32]:
    """Return (H, W) int32 labels of a grey PNG of 8 or 16 bits.

    Raises `InputError` for a file that is missing, damaged or in colour.
    """
    check_file(Path(path))
    remedy = "give a grey PNG of 8 or 16 bits"
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise InputError(path, f"not a readable image of labels ({error})", remedy) from None
    if pixels.ndim != 2:
        raise InputError(path, "an image in colour holds no labels", remedy)
    return pixels.astype(np.int32)
