"""Make the data set of the downstream task."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from stainfuser.diffusion.downstream_data import (
    PHANTOMS,
    Amounts,
    nucleus_set_data,
    phantom_data,
)
from stainfuser.io.downstream_store import write_downstream
from stainfuser.io.nucleus_formats import read_nucleus_set
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp


def prepare_downstream(
    *,
    data_path: str | Path,
    seed: int,
    dataset: str,
    laboratory: str,
    train_on: str | None,
    shifts: int,
    train_tiles: int,
    test_tiles: int,
    references: int,
    tile_px: int,
    mpp: float,
) -> None:
    """Write tiles to train and to test on and reference images, see `io.downstream_store`.

    Parameters
    ----------
    data_path
        HDF5.
    seed
        Draws tissue, the division of a data set and its recolourings.
    dataset
        "phantoms", or the folder of a data set (`io.nucleus_formats`).
    laboratory
        phantoms: whose stain is trained on; the others' is tested.
    train_on, shifts
        Data sets: groups whose name begins so are trained on (None: drawn); recolourings of the
        test images (0: as scanned).
    train_tiles, test_tiles, references
        Most tiles to train on, pieces of tissue to test on, reference images.
    tile_px, mpp
        Side of a tile, px, and its resolution, um per px.

    Raises
    ------
    InputError, ConfigError
        A data set that cannot be used, or an unknown laboratory.
    """
    amounts = Amounts(train_tiles, test_tiles, references, tile_px, mpp)
    if dataset == PHANTOMS:
        data = phantom_data(seed, laboratory, amounts)
    else:
        data = nucleus_set_data(read_nucleus_set(dataset), seed, train_on, shifts, amounts)
    config = {"seed": seed, "dataset": data.dataset, "train_on": train_on, "shifts": shifts}
    config |= {"laboratory": laboratory, **dataclasses.asdict(amounts)}
    write_downstream(data_path, data, make_stamp("prepare_downstream", config))
    LOGGER.info(
        "%s: %d tiles to train on, %d to test on, %d references",
        data.dataset,
        len(data.train_images),
        len(data.test_images),
        len(data.references),
    )
