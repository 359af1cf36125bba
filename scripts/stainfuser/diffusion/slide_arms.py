"""One arm of the slide benchmark in a process of its own: a slide in, a slide out, timed by others.

The arms `copy` and the classical ones share reader, writer and threads with `normalize_slide`, so
that what differs is the normalising alone. The `plain` classical arm is what users of these methods
write: OpenSlide and a loop over tiles.
"""

from __future__ import annotations

import importlib
import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.changes import Change, Piece
from stainfuser.diffusion.painting import SlidePainter, paint_slide
from stainfuser.diffusion.slide_view import SlideView
from stainfuser.files import write_json
from stainfuser.io.images import read_image
from stainfuser.io.masks import read_mask
from stainfuser.io.pyramid_writer import PyramidWriter
from stainfuser.io.slide_layout import Block, SlideSpec
from stainfuser.io.slides import SlideReader
from stainfuser.stain.blend import soften_mask

CLASSICAL_ARMS = ("macenko", "reinhard")
PLAIN_ARM = "macenko, plain loop"
Normalize = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


class ClassicalChange:
    """Every piece with tissue through a classical method, each for itself."""

    def __init__(self, normalize: Normalize) -> None:
        self._normalize = normalize

    def prepare(self, block: Block) -> None:
        """Nothing is shared."""

    def apply(self, piece: Piece, rgbx: NDArray[np.uint8], weight: NDArray[np.uint8]) -> None:
        """Normalise the whole piece, glass included, as these methods do."""
        rgbx[..., :3] = self._normalize(np.ascontiguousarray(rgbx[..., :3]))


def write_arm(arm: str, slide: dict[str, Any], threads: int) -> None:
    """Write a slide by an arm that is not StainFuser's.

    `slide` holds paths (`slide_path`, `mask_path`, `target_path`, `output_path`, `work_dir`), `mpp`
    and the encoding (`jpeg_quality`, `output_tile_px`, `block_px`).
    """
    plain = arm == PLAIN_ARM
    change: Change | None = None
    if arm != "copy":
        change = ClassicalChange(_torchstain(arm.partition(",")[0], slide["target_path"]))
    threads = 1 if plain else threads

    def open_reader() -> SlideReader:
        return SlideReader(slide["slide_path"], slide["mpp"], fast=not plain)

    with open_reader() as reader:
        size_px = reader.size_px
    mask = read_mask(slide["mask_path"])
    weight = soften_mask(mask, slide["mpp"] * size_px[0] / mask.shape[1])
    view = SlideView(*size_px, slide["mpp"], slide["mpp"], weight)
    sizes = (slide["jpeg_quality"], slide["output_tile_px"], slide["block_px"])
    spec = SlideSpec(*size_px, slide["mpp"], None, *sizes)
    work_dir = Path(slide["work_dir"])
    shutil.rmtree(work_dir, ignore_errors=True)
    with PyramidWriter(slide["output_path"], work_dir, spec, key=arm, threads=threads) as writer:
        painter = SlidePainter(open_reader, view, change, threads)
        paint_slide(arm, painter, writer, threads)
        painter.close()
        writer.finish()


def _torchstain(method: str, target_path: str) -> Normalize:
    """Return a method of torchstain fitted to an image, in its faster backend; failures keep."""
    target = read_image(target_path)
    if method == "reinhard":
        from stainfuser.stain.classical import fit_classical

        fitted = fit_classical(method, target)
        return lambda rgb: fitted(rgb).image
    import torch
    from torchstain.torch.normalizers import TorchMacenkoNormalizer

    torch.set_num_threads(1)
    engine = TorchMacenkoNormalizer()
    engine.fit(torch.from_numpy(target.copy()).permute(2, 0, 1))

    def normalize(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            return engine.normalize(torch.from_numpy(rgb).permute(2, 0, 1))[0].numpy()
        except (RuntimeError, ValueError, IndexError):
            return rgb  # hardly any tissue in the tile

    return normalize


def peak_memory_mb() -> float:
    """Return the most memory this process had resident, and its largest child, MB.

    On Linux from the kernel's account of this program: `getrusage` also counts the process that
    started it. The two peaks need not coincide, and a child shares memory: the truth is no more.
    """
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024 + child
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + child


def main(request_path: Path) -> None:
    """Do what a request says and leave the process's use of the machine in `used.json` beside it.

    A request is ``{"arm", "slide", "threads"}``, or ``{"call": "module:function", "options"}``.
    """
    request = json.loads(request_path.read_text(encoding="utf-8"))
    if "call" in request:
        module, name = request["call"].split(":")
        getattr(importlib.import_module(module), name)(**request["options"])
    else:
        write_arm(request["arm"], request["slide"], request["threads"])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu_s = sum(part.ru_utime + part.ru_stime for part in used)
    record = {"cpu_s": cpu_s, "peak_rss_mb": peak_memory_mb()}
    write_json(request_path.with_name("used.json"), record)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
