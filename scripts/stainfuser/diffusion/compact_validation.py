"""What the diffusion model adds to the operator it starts from, on tissue kept out of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.head_evaluation import ExactTask, recolouring_tasks
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.validation import round_trip
from stainfuser.pictures import contact_sheet
from stainfuser.stain.metrics import ciede2000, gradient_correlation, psnr
from stainfuser.stain.tile_grid import middle_of

Image = NDArray[np.uint8]
MODES = ("operator", "render")
# Middle of an image that makes the round trip, px.
ROUND_TRIP_PX = 256
SHEET_ROWS = 12


@dataclass(frozen=True)
class RenderedTasks:
    """Tasks with exact answers, and what each of `MODES` made of them."""

    tasks: list[ExactTask]
    results: dict[str, list[Image]]

    def __len__(self) -> int:
        return len(self.tasks)

    def sheet(self) -> Image:
        """Draw source, reference, both results and the truth of some tasks."""
        count = len(self.tasks)
        chosen = np.unique(np.linspace(0, count - 1, min(SHEET_ROWS, count)).astype(int))
        rows = []
        for i in chosen:
            task, results = self.tasks[i], [self.results[mode][i] for mode in MODES]
            rows.append([task.source, task.reference, *results, task.truth])
        return contact_sheet(
            rows,
            title="Held-out tissue in a stain of another family than trained on",
            column_titles=("source", "target", *MODES, "truth"),
            row_titles=[self.tasks[i].data for i in chosen],
            cell_px=224,
        )


def render_tasks(
    pipeline: StainFuserPipeline, images: Mapping[str, Image], seed: int, pairs_per_image: int = 1
) -> RenderedTasks:
    """Send held-out images under held-out recolourings through both modes of a model."""
    tasks = recolouring_tasks(images, seed, pairs_per_image)
    results: dict[str, list[Image]] = {mode: [] for mode in MODES}
    for task in tasks:
        target = pipeline.encode_target(task.reference)
        for mode, found in results.items():
            found.append(pipeline(task.source, target, output_type="np", mode=mode).images[0])
    return RenderedTasks(tasks, results)


def compare_modes(rendered: RenderedTasks) -> dict[str, dict[str, float]]:
    """Return mode → mean CIEDE2000 and PSNR to the truth, gradient correlation with the source.

    "identity" is the source as it is.
    """
    arms = {"identity": [task.source for task in rendered.tasks], **rendered.results}
    return {name: _scores(rendered.tasks, images) for name, images in arms.items()}


def share_nearer(rendered: RenderedTasks) -> float:
    """Return the fraction of tasks in which rendering is nearer to the truth than the operator."""
    triples = zip(rendered.tasks, *(rendered.results[mode] for mode in MODES), strict=True)
    nearer = [ciede2000(b, task.truth) < ciede2000(a, task.truth) for task, a, b in triples]
    return round(float(np.mean(nearer)), 4)


def round_trip_psnr(pipeline: StainFuserPipeline, images: Sequence[Image]) -> dict[str, float]:
    """Return mean and worst PSNR, dB, of the autoencoder's round trip of the images' middles."""
    middles = [np.ascontiguousarray(middle_of(image, ROUND_TRIP_PX)) for image in images]
    values = [psnr(image, round_trip(pipeline, image)) for image in middles]
    return {"mean": round(float(np.mean(values)), 2), "worst": round(float(min(values)), 2)}


def _scores(tasks: Sequence[ExactTask], images: Sequence[Image]) -> dict[str, float]:
    pairs = list(zip(tasks, images, strict=True))
    structure = [gradient_correlation(task.source, image) for task, image in pairs]
    scores = {
        "ciede2000": np.mean([ciede2000(image, task.truth) for task, image in pairs]),
        "psnr_db": np.mean([psnr(image, task.truth) for task, image in pairs]),
        "gradient_correlation": np.mean(structure),
        "gradient_correlation_worst": np.min(structure),
    }
    return {name: round(float(value), 4) for name, value in scores.items()}
