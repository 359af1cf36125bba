"""Which format a folder of outlined nuclei is in."""

from __future__ import annotations

from pathlib import Path

from stainfuser.errors import InputError
from stainfuser.io.conic import read_conic
from stainfuser.io.monuseg import read_monuseg
from stainfuser.io.nucleus_set import NucleusSet


def read_nucleus_set(folder: str | Path) -> NucleusSet:
    """Open a data set by what its folder holds.

    ``images.npy``: CoNIC; XML files: MoNuSeg; ZIP archives: ImageJ.

    Raises
    ------
    InputError
        There is no such folder, or it holds none of these.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(folder, "there is no such folder", "check downstream.dataset")
    if (folder / "images.npy").exists() or (folder / "labels.npy").exists():
        return read_conic(folder)
    if next(folder.rglob("*.xml"), None):
        return read_monuseg(folder)
    if next(folder.glob("*.zip"), None):
        # roifile is imported only where it is needed.
        from stainfuser.io.imagej_rois import read_imagej

        return read_imagej(folder)
    wrong = "it holds neither images.npy (CoNIC), XML outlines (MoNuSeg) nor archives (ImageJ)"
    raise InputError(folder, wrong, "check downstream.dataset")
