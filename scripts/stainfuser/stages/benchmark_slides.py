"""How fast, in how little memory and how seamless: a slide copied, normalised, and by its peers."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.diffusion.benchmark_slide import (
    MPP,
    SOURCE_LABORATORY,
    TARGET_LABORATORY,
    phantom_swatch,
    write_benchmark_slide,
)
from stainfuser.diffusion.seam_check import measure_seams
from stainfuser.diffusion.slide_arms import CLASSICAL_ARMS, PLAIN_ARM
from stainfuser.files import (
    atomic_path,
    read_json,
    sha256_content,
    sha256_file,
    write_json,
    write_rows,
)
from stainfuser.io.images import write_image
from stainfuser.io.masks import read_mask
from stainfuser.io.slides import SlideReader
from stainfuser.logs import LOGGER
from stainfuser.seeds import generator
from stainfuser.stain.seams import Line
from stainfuser.stamps import make_stamp

COLUMNS = ("arm", "slide", "mpix_per_s", "peak_rss_mb", "bytes", "seam_score")
TARGET_PX = 1024


def benchmark_slides(
    *,
    normalize: Callable[..., None],
    normalize_options: Mapping[str, Any],
    model_dir: str | Path,
    table_path: str | Path,
    details_path: str | Path,
    figure_path: str | Path,
    work_dir: str | Path,
    seed: int,
    side_px: int,
    tissue_fraction: float,
    render_px: int,
    repeats: int,
    threads: int = 1,
) -> None:
    """Time every arm on the same slide, in the same run, each in a process of its own.

    Arms: `copy` (decode and encode), `operator`, `render` (on a small slide that is all tissue,
    with a copy of it), torchstain's Macenko and Reinhard on every tile with tissue, and Macenko as
    users write it. All but the last share reader, writer, encoding and threads.

    Parameters
    ----------
    normalize, normalize_options, model_dir
        The stage `normalize_slide`, its section of the configuration, and the model.
    table_path
        CSV of `COLUMNS`. `mpix_per_s` counts all pixels of level 0 over the seconds the process
        took from start to end, imports and the sampling of the model included.
    details_path
        JSON of every single run, CPU seconds included.
    figure_path
        PNG.
    work_dir
        Keeps the slide for the next run.
    seed
        Seed of the tissue and of the places where seams are looked for.
    side_px, tissue_fraction
        The slide: side, level-0 px, and share that is tissue.
    render_px
        Side of the slide that is rendered, level-0 px.
    repeats
        Runs of the arms that are compared most closely, copy and operator, in turn; the median
        counts.
    """
    work_dir = Path(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    quality = normalize_options["jpeg_quality"]
    large = _make_slide(work_dir, seed, side_px, tissue_fraction, quality)
    small = _make_slide(work_dir, seed, render_px, 1.0, quality)
    bench = _Bench(normalize, dict(normalize_options), str(model_dir), work_dir, seed, threads)
    runs = [(arm, large) for _ in range(repeats) for arm in ("copy", "operator")]
    runs += [("copy", small), ("render", small)]
    runs += [(arm, large) for arm in (*CLASSICAL_ARMS, PLAIN_ARM)]
    for arm, slide in runs:
        bench.run(arm, slide)
    rows = bench.rows()
    write_rows(table_path, COLUMNS, rows)
    options = {"seed": seed, "side_px": side_px, "tissue_fraction": tissue_fraction}
    stamp = make_stamp("benchmark_slides", {**options, **normalize_options})
    write_json(details_path, {"runs": bench.details, "threads": threads, "stamp": stamp})
    _draw(rows, Path(figure_path))
    for line in _as_text(rows):
        LOGGER.info("%s", line)


@dataclass(frozen=True)
class _Slide:
    """A source: its name, side and files."""

    name: str
    side_px: int
    path: Path
    mask_path: Path
    target_path: Path
    json_path: Path


def _make_slide(folder: Path, seed: int, side_px: int, tissue: float, quality: int) -> _Slide:
    """Return the slide, made if it is not there yet."""
    key = sha256_content([seed, side_px, tissue, quality])[:12]
    name = f"phantom, {side_px} px, {min(tissue, 1.0):.0%} tissue"
    paths = [folder / f"{key}{ending}" for ending in (".svs", ".png", ".json")]
    slide = _Slide(name, side_px, *paths[:2], folder / f"target-{seed}.png", paths[2])
    if not slide.target_path.exists():
        target = phantom_swatch(seed, TARGET_LABORATORY, "target")
        write_image(slide.target_path, target[:TARGET_PX, :TARGET_PX])
    if not slide.json_path.exists():
        LOGGER.info("making the slide %s", name)
        swatch = phantom_swatch(seed, SOURCE_LABORATORY, "source")
        options = {"side_px": side_px, "tissue_fraction": tissue, "quality": quality}
        write_benchmark_slide(slide.path, slide.mask_path, swatch, seed, **options)
        record = {"width_px": side_px, "height_px": side_px, "mpp": MPP, "objective_power": 20.0}
        write_json(slide.json_path, {**record, "sha256": sha256_file(slide.path)})
    return slide


@dataclass
class _Bench:
    """The arms and what they took."""

    normalize: Callable[..., None]
    options: dict[str, Any]
    model_dir: str
    work_dir: Path
    seed: int
    threads: int
    details: list[dict[str, Any]] = field(default_factory=list)

    def run(self, arm: str, slide: _Slide) -> None:
        """Run one arm in a process of its own and note what it took; a failure is noted, too."""
        output = self.work_dir / "output.svs"
        output.unlink(missing_ok=True)
        sha256_file(slide.path)  # all arms find the file in the system's cache
        request = self._request(arm, slide, output)
        write_json(self.work_dir / "request.json", request)
        started_s = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "stainfuser.diffusion.slide_arms", "request.json"],
            cwd=self.work_dir,
            env=_environment(),
            capture_output=True,
            text=True,
        )
        wall_s = time.perf_counter() - started_s
        note: dict[str, Any] = {"arm": arm, "slide": slide.name, "wall_s": wall_s}
        note["mpix_per_s"] = slide.side_px**2 / 1e6 / wall_s
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no message"]
            LOGGER.warning("%s on %s failed: %s", arm, slide.name, lines[-1])
            self.details.append({**note, "failure": lines[-1]})
            return
        note |= read_json(self.work_dir / "used.json")
        note |= {"bytes": output.stat().st_size, "seam_score": self._seams(arm, slide, output)}
        if arm in ("operator", "render"):
            plan = read_json(output.with_suffix(".json"))
            note |= {name: plan[name] for name in ("mode_used", "residual")}
        LOGGER.info("%s on %s: %.1f MPix/s", arm, slide.name, note["mpix_per_s"])
        self.details.append(note)

    def _request(self, arm: str, slide: _Slide, output: Path) -> dict[str, Any]:
        names = ("slide_path", "mask_path", "target_path", "output_path", "work_dir")
        work_dir = self.work_dir / "arm"
        paths = (slide.path, slide.mask_path, slide.target_path, output, work_dir)
        files = {name: str(path.absolute()) for name, path in zip(names, paths, strict=True)}
        if arm not in ("operator", "render"):
            encoding = {
                key: self.options[key] for key in ("jpeg_quality", "output_tile_px", "block_px")
            }
            return {"arm": arm, "slide": files | encoding | {"mpp": MPP}, "threads": self.threads}
        function = f"{self.normalize.__module__}:{self.normalize.__qualname__}"
        more = {
            "slide": "benchmark",
            "json_path": str(slide.json_path.absolute()),
            "record_path": str(output.with_suffix(".json").absolute()),
            "model_dir": os.path.abspath(self.model_dir),
            "seed": self.seed,
            "threads": self.threads,
        }
        return {"call": function, "options": {**self.options, "mode": arm, **files, **more}}

    def _seams(self, arm: str, slide: _Slide, output: Path) -> float | None:
        """Return the seam score along all borders there may be."""
        mask = read_mask(slide.mask_path)
        scale = mask.shape[0] / slide.side_px
        steps = [self.options["output_tile_px"], self.options["block_px"]]
        if arm != "copy":
            steps.append(self.options["tile_px"])
        borders = {at for step in steps for at in range(step, slide.side_px, step)}
        if arm == "render":
            stride = self.options["tile_px"] - self.options["overlap_px"]
            starts = range(stride, slide.side_px, stride)
            borders |= {
                at for start in starts for at in (start, start + self.options["overlap_px"])
            }

        def is_tissue(line: Line) -> bool:
            x, y = (int((at + 32) * scale) for at in (line.x_px, line.y_px))
            return bool(mask[max(0, y - 8) : y + 9, max(0, x - 8) : x + 9].all())

        rng = generator(self.seed, "seams")
        with SlideReader(slide.path, MPP) as source, SlideReader(output, MPP) as result:
            return measure_seams(source, result, sorted(borders), is_tissue, rng)

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per arm and slide: the median speed, the worst of the rest."""
        rows = []
        places = dict.fromkeys((note["arm"], note["slide"]) for note in self.details)
        for arm, slide in places:
            notes = [n for n in self.details if (n["arm"], n["slide"]) == (arm, slide)]
            notes = [note for note in notes if "failure" not in note]
            if notes:
                speed = statistics.median(note["mpix_per_s"] for note in notes)
                row = {"arm": arm, "slide": slide, "mpix_per_s": round(speed, 2)}
                row["peak_rss_mb"] = round(max(note["peak_rss_mb"] for note in notes))
                row["bytes"] = notes[-1]["bytes"]
                seam = notes[-1]["seam_score"]
                rows.append({**row, "seam_score": "" if seam is None else round(seam, 3)})
        return rows


def _environment() -> dict[str, str]:
    """Return the environment in which a child finds this package."""
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _as_text(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table in columns, with every arm's speed against the copy of the same slide."""
    copies = {row["slide"]: row["mpix_per_s"] for row in rows if row["arm"] == "copy"}
    lines = [f"{'arm':20} {'slide':34} {'MPix/s':>8} {'of copy':>8} {'RSS MB':>7} {'seams':>6}"]
    for row in rows:
        share = row["mpix_per_s"] / copies.get(row["slide"], float("nan"))
        lines.append(
            f"{row['arm']:20} {row['slide']:34} {row['mpix_per_s']:8.1f} {share:8.2f} "
            f"{row['peak_rss_mb']:7} {row['seam_score']:>6}"
        )
    return lines


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw speed, memory and seams of every arm as bars."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    labels = [f"{row['arm']}\n{row['slide'].removeprefix('phantom, ')}" for row in rows]
    panels = (
        ("mpix_per_s", "MPix/s, slide in to slide out", "log"),
        ("peak_rss_mb", "peak memory, MB", "linear"),
        ("seam_score", "steps at borders / elsewhere", "linear"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(13, 0.55 * len(rows) + 1.3), sharey=True)
    for axis, (column, title, scale) in zip(axes, panels, strict=True):
        values = [np.nan if row[column] == "" else row[column] for row in rows]
        bars = axis.barh(range(len(rows)), values, color="#7a5ea8", height=0.65)
        axis.bar_label(bars, fmt="%.4g", padding=3, fontsize=8)
        axis.set_xscale(scale)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.18)
    axes[2].axvline(1.0, color="#888888", linewidth=0.8, linestyle=":")
    axes[0].set_yticks(range(len(rows)), labels, fontsize=8)
    axes[0].invert_yaxis()
    figure.tight_layout()
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120, metadata={"Software": None})
    plt.close(figure)
