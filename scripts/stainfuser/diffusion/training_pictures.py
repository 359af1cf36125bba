"""Pictures of a training run: loss curves, and held-out pairs before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.diffusion.optimization import validation_phase
from stainfuser.diffusion.validation import RenderedPart
from stainfuser.files import atomic_path
from stainfuser.pictures import contact_sheet, save_picture

TITLES = {
    "train": "trained on",
    "held_out_sources": "new tissue",
    "held_out_targets": "new stain",
    "held_out_both": "new tissue\nand new stain",
}
COLUMNS = ("source", "target", "untrained", "trained", "truth")
COLOURS = {"autoencoder": "#7a5195", "diffusion": "#35618f", "finetune": "#2a7f62"}
HELD_OUT_COLOURS = ("#c8553d", "#d9953f", "#8a6d3b")
PHASE_TITLES = {
    "autoencoder": "autoencoder: error of the round trip",
    "diffusion": "diffusion: error of the prediction",
    "finetune": "pixels: colour, grey levels, structure",
}
DPI = 120


def draw_samples(path: str | Path, parts: dict[str, RenderedPart], rows_per_part: int) -> None:
    """Write a sheet: source | target | untrained | trained | truth, rows of every part."""
    rows, titles = [], []
    for name, part in parts.items():
        count = len(part.source)
        # Neighbours share their target; pairs far apart show more.
        for index in np.unique(np.linspace(0, count - 1, min(rows_per_part, count)).astype(int)):
            before, after = part.arms["untrained"][index], part.arms["trained"][index]
            rows.append([part.source[index], part.target[index], before, after, part.truth[index]])
            titles.append(TITLES[name])
    sheet = contact_sheet(
        rows,
        title="Pairs the model was and was not trained on",
        column_titles=COLUMNS,
        row_titles=titles,
        cell_px=224,
    )
    save_picture(path, sheet)


def draw_curves(path: str | Path, rows: Sequence[Sequence[Any]]) -> None:
    """Write the loss of every phase against the step, with a running mean.

    `rows` are (phase, step, loss, learning rate); those of phase "<phase> validation <name>" are
    drawn with the phase.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    phases = [phase for phase in PHASE_TITLES if any(row[0] == phase for row in rows)]
    figure, axes = pyplot.subplots(
        1, max(len(phases), 1), figsize=(5.2 * max(len(phases), 1), 3.4), squeeze=False
    )
    for axis, phase in zip(axes[0], phases, strict=False):
        _draw_phase(axis, phase, rows)
    figure.tight_layout()
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=DPI, metadata={"Software": None})
    pyplot.close(figure)


def _draw_phase(axis: Any, phase: str, rows: Sequence[Sequence[Any]]) -> None:
    steps, losses = _series(rows, phase)
    axis.plot(steps, losses, color=COLOURS[phase], alpha=0.25, linewidth=0.8)
    axis.plot(steps, _running_mean(losses), color=COLOURS[phase], linewidth=1.8, label="training")
    prefix = f"{validation_phase(phase)} "
    held_out = list(dict.fromkeys(row[0] for row in rows if row[0].startswith(prefix)))
    for name, colour in zip(held_out, HELD_OUT_COLOURS, strict=False):
        steps, losses = _series(rows, name)
        label = TITLES.get(name.removeprefix(prefix), name.removeprefix(prefix)).replace("\n", " ")
        axis.plot(steps, losses, "o-", color=colour, markersize=4, label=label)
    if held_out:
        axis.legend(frameon=False)
    axis.set_yscale("log")
    axis.set_title(PHASE_TITLES[phase], fontsize=10, loc="left")
    axis.set_xlabel("step")
    axis.grid(True, which="major", color="#e4e1ea", linewidth=0.7)
    axis.spines[["top", "right"]].set_visible(False)


def _series(rows: Sequence[Sequence[Any]], phase: str) -> tuple[np.ndarray, np.ndarray]:
    chosen = [(row[1], row[2]) for row in rows if row[0] == phase]
    table = np.asarray(chosen, float).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Average over a trailing window of a twentieth of the curve."""
    window = max(len(values) // 20, 1)
    total = np.cumsum(np.concatenate([[0.0], values]))
    index = np.arange(1, len(values) + 1)
    first = np.maximum(index - window, 0)
    return (total[index] - total[first]) / (index - first)
