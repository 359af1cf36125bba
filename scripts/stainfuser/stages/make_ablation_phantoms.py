"""Paint the phantoms that ablations train and test on."""

from __future__ import annotations

from pathlib import Path

import h5py

from stainfuser.diffusion.ablation_data import draw_phantoms
from stainfuser.errors import ConfigError
from stainfuser.files import atomic_path
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp

# Sections are four tiles wide, and hold no tissue below this side.
LEAST_TILE_PX = 64


def make_ablation_phantoms(
    *,
    phantoms_path: str | Path,
    seed: int,
    targets: int,
    tile_px: int,
    sections: int,
    sources: int,
    sources_per_target: int,
    test_pairs: int,
) -> None:
    """Write the arrays of `diffusion.ablation_data.AblationPhantoms` as HDF5.

    Parameters
    ----------
    targets
        Largest number of targets that an instance trains on.
    tile_px
        Side of all tiles, px at 40x.
    sections, sources, sources_per_target
        Sections grown, tiles of them as sources, and sources painted in each target's laboratory.
    test_pairs
        Pairs of other sections and laboratories.
    """
    if tile_px < LEAST_TILE_PX:
        wrong = f"{tile_px} px show next to no tissue"
        raise ConfigError("ablation.tile_px", wrong, f"use at least {LEAST_TILE_PX}")
    options = {
        "seed": seed,
        "targets": targets,
        "tile_px": tile_px,
        "sections": sections,
        "sources": sources,
        "sources_per_target": sources_per_target,
        "test_pairs": test_pairs,
    }
    phantoms = draw_phantoms(**options)
    with atomic_path(phantoms_path) as partial, h5py.File(partial, "w") as file:
        for name, values in phantoms.to_arrays().items():
            # Without times the same phantoms are the same bytes.
            file.create_dataset(name, data=values, track_times=False)
        file.attrs.update(make_stamp("make_ablation_phantoms", options))
    LOGGER.info("%d sources, %d targets, %d test pairs", sources, targets, test_pairs)
