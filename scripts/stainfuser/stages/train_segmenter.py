"""Train the segmentation network of the downstream task on the stain of its training tiles."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.segmenter_training import SegmenterTraining, segment, train_network
from stainfuser.diffusion.torch_threads import torch_threads
from stainfuser.files import atomic_path, sha256_file
from stainfuser.io.downstream_store import DownstreamData, read_downstream
from stainfuser.nn.segmenter import SegmenterParams, save_segmenter
from stainfuser.nucleus_pictures import COLOUR_NAMES, outlined
from stainfuser.pictures import contact_sheet, save_picture
from stainfuser.stamps import make_stamp

SAMPLE_TILES, CELL_PX = 4, 512


def train_segmenter(
    *,
    data_path: str | Path,
    segmenter_dir: str | Path,
    seed: int,
    steps: int,
    batch_size: int,
    crop_px: int,
    learning_rate: float,
    widths: Sequence[int],
    threads: int = 1,
) -> None:
    """Write the network (safetensors, config.json), `losses.csv` and `samples.png` into a folder.

    Parameters
    ----------
    data_path
        `prepare_downstream`'s.
    segmenter_dir
        Folder they are written into.
    seed
        Of weights and crops.
    steps, batch_size, crop_px, learning_rate
        Of AdamW.
    widths
        Channels at 1/2, 1/4 and 1/8 of the resolution.
    threads
        Of torch; another number rounds differently.
    """
    data = read_downstream(data_path)
    params = SegmenterParams(data.classes, data.mpp, tuple(int(width) for width in widths))
    options = SegmenterTraining(steps, batch_size, crop_px, learning_rate)
    with torch_threads(threads):
        trained = train_network(data.train_images, data.train_labels, params, options, seed)
        images, truth = _sample_of(data)
        found = segment(trained.network, images)
    config = {"seed": seed, **options.__dict__, "widths": list(params.widths)}
    stamp = make_stamp("train_segmenter", config, data_sha256=sha256_file(data_path))
    folder = Path(segmenter_dir)
    _write_losses(folder / "losses.csv", trained.losses)
    _draw_samples(folder / "samples.png", data.classes, images, truth, found)
    save_segmenter(trained.network, folder, stamp)


def _sample_of(data: DownstreamData) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Return tiles to show: of tissue that was not trained on, where there is some in its stain."""
    if data.test_original is None:
        return data.train_images[:SAMPLE_TILES], data.train_labels[:SAMPLE_TILES]
    first = {tile: row for row, tile in reversed(list(enumerate(data.test_tile)))}
    rows = sorted(first.values())[:SAMPLE_TILES]
    return data.test_original[rows], data.test_labels[rows]


def _draw_samples(
    path: Path,
    classes: Sequence[str],
    images: NDArray[np.uint8],
    truth: NDArray[np.int32],
    found: NDArray[np.int32],
) -> None:
    cells = [
        [outlined(image, true), outlined(image, answer)]
        for image, true, answer in zip(images, truth, found, strict=True)
    ]
    key = ", ".join(f"{name} {colour}" for name, colour in zip(classes, COLOUR_NAMES, strict=False))
    title = f"In the stain that was trained on: {key}"
    titles = ("truth", "network")
    save_picture(path, contact_sheet(cells, title=title, column_titles=titles, cell_px=CELL_PX))


def _write_losses(path: Path, losses: Sequence[float]) -> None:
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("step", "loss"))
        writer.writerows((step, f"{loss:.6g}") for step, loss in enumerate(losses, 1))
