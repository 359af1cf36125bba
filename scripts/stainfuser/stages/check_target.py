"""Check the user's target image and bring it into the one form the other stages read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stainfuser.errors import InputError
from stainfuser.files import sha256_file
from stainfuser.io.images import read_image, write_image
from stainfuser.logs import LOGGER
from stainfuser.stain.tissue import image_tissue_mask
from stainfuser.stamps import make_stamp

MIN_SIDE_PX = 64
MIN_TISSUE_FRACTION = 0.05
_BLANK_CONTRAST = 4.0  # grey levels between the 1st and 99th percentile: JPEG noise stays below
_REMEDY = "give a picture of H&E tissue, e.g. 1024 x 1024 px cut from a slide you like"


def check_target(*, source_path: str | Path, image_path: str | Path) -> None:
    """Write the user's target image as RGB PNG.

    Parameters
    ----------
    source_path
        The user's image, of any common format and size.
    image_path
        The PNG, pixels unchanged (transparency on white, 16 bit to 8).

    Raises
    ------
    InputError
        The file is missing or no image (see `read_image`), smaller than 64 px, blank, or less
        than 5 % of it is tissue.
    """
    rgb = read_image(source_path)
    height_px, width_px = rgb.shape[:2]
    if min(height_px, width_px) < MIN_SIDE_PX:
        wrong = f"the target image has {width_px} x {height_px} px, expected sides of {MIN_SIDE_PX}"
        raise InputError(source_path, wrong, _REMEDY)
    overview, mask = image_tissue_mask(rgb, None)
    low, high = np.percentile(overview.mean(axis=-1), (1, 99))
    if high - low < _BLANK_CONTRAST:
        raise InputError(source_path, "the target image is blank", _REMEDY)
    if mask.mean() < MIN_TISSUE_FRACTION:
        found = f"only {100 * mask.mean():.1f} % of the target image is tissue"
        wrong = f"{found}, expected at least {100 * MIN_TISSUE_FRACTION:g} %"
        raise InputError(source_path, wrong, _REMEDY)
    stamp = make_stamp("check_target", {}, source_sha256=sha256_file(source_path))
    write_image(image_path, rgb, text=stamp)
    LOGGER.info("target: %d x %d px, %.0f %% tissue", width_px, height_px, 100 * mask.mean())
