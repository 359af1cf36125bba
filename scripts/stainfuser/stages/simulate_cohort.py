"""Hours and cost of a cohort on a cluster, from times measured here, replayed through a model."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from stainfuser.cluster_model import Cluster, Job, simulate
from stainfuser.errors import InputError
from stainfuser.files import atomic_path, write_rows, write_text
from stainfuser.logs import LOGGER

MODES = ("operator", "render")
COLUMNS = (
    "mode",
    "slides",
    "hours",
    "core_hours",
    "gpu_hours",
    "cost",
    "core_share",
    "storage_share",
)
# Rules of which every slide has one job, besides normalize_slide, in their order.
PER_SLIDE = ("probe_slide", "mask_tissue")
# A probe also hashes the slide's file; one core does so much.
HASHED_GIGABYTES_PER_S = 1.0


@dataclass(frozen=True)
class SlideCosts:
    """Seconds per slide: of one core by rule, and to normalise it in each mode."""

    rules: dict[str, float]
    normalize: dict[str, float]
    render_on_gpu: bool


def simulate_cohort(
    *,
    speed_path: str | Path,
    benchmarks_dir: str | Path,
    table_path: str | Path,
    text_path: str | Path,
    figure_path: str | Path,
    cohorts: Sequence[int],
    slide_gigapixels: float,
    tissue_fraction: float,
    slide_gigabytes: float,
    nodes: int,
    cores_per_node: int,
    gpus_per_node: int,
    storage_gigabytes_per_s: float,
    job_start_s: float,
    slides_per_job: int,
    render_gpu_speedup: float | None,
    price_core_hour: float,
    price_gpu_hour: float,
) -> None:
    """Simulate `normalize` of every cohort in both modes; write table, text with assumptions, plot.

    Parameters
    ----------
    speed_path
        Table of `benchmark_slides`: how fast a slide is normalised.
    benchmarks_dir
        Snakemake's benchmark files of a run, a folder per rule.
    table_path, text_path, figure_path
        CSV of `COLUMNS`; Markdown, also logged; PNG.

    Raises
    ------
    InputError
        No run was measured, or a mode was not.
    """
    costs = measure_costs(
        speed_path,
        benchmarks_dir,
        slide_gigapixels=slide_gigapixels,
        tissue_fraction=tissue_fraction,
        slide_gigabytes=slide_gigabytes,
        render_gpu_speedup=render_gpu_speedup,
    )
    cluster = Cluster(nodes, cores_per_node, gpus_per_node, storage_gigabytes_per_s, job_start_s)
    rows = []
    for mode in MODES:
        for slides in cohorts:
            LOGGER.info("simulate: %s, %d slides", mode, slides)
            jobs = cohort_jobs(costs, mode, slides, slide_gigabytes, slides_per_job)
            row = _as_row(jobs, cluster, price_core_hour, price_gpu_hour)
            rows.append({"mode": mode, "slides": slides, **row})
    text = _as_text(rows, _assumptions(locals(), costs))
    write_rows(table_path, COLUMNS, rows)
    write_text(text_path, text)
    _draw(figure_path, rows)
    LOGGER.info("%s", text)


def measure_costs(
    speed_path: str | Path,
    benchmarks_dir: str | Path,
    *,
    slide_gigapixels: float,
    tissue_fraction: float,
    slide_gigabytes: float,
    render_gpu_speedup: float | None,
) -> SlideCosts:
    """Return what a slide of this size costs, from what was measured on others."""
    rules = {rule: _median_seconds(Path(benchmarks_dir), rule) for rule in PER_SLIDE}
    rules["probe_slide"] += slide_gigabytes / HASHED_GIGABYTES_PER_S
    speeds = _read_speeds(speed_path)
    copied_s = slide_gigapixels * 1e3 / speeds["copy"]
    rendered_s = slide_gigapixels * tissue_fraction * 1e3 / speeds["render"]
    normalize = {
        "operator": slide_gigapixels * 1e3 / speeds["operator"],
        "render": copied_s + rendered_s / (render_gpu_speedup or 1.0),
    }
    return SlideCosts(rules, normalize, render_gpu_speedup is not None)


def cohort_jobs(
    costs: SlideCosts, mode: str, slides: int, slide_gigabytes: float, slides_per_job: int
) -> list[Job]:
    """Return the jobs of `normalize`: probes in groups, the list of all, a job per slide."""
    jobs = [
        Job(count * costs.rules["probe_slide"], count * slide_gigabytes)
        for count in _groups(slides, slides_per_job)
    ]
    jobs.append(Job(0.0, cores=0, after=tuple(range(len(jobs)))))
    seconds = costs.rules["mask_tissue"] + costs.normalize[mode]
    gpus = int(mode == "render" and costs.render_on_gpu)
    # Read once, written once.
    slide = Job(seconds, 2 * slide_gigabytes, gpus=gpus, after=(len(jobs) - 1,))
    return jobs + [slide] * slides


def _groups(total: int, size: int) -> list[int]:
    return [min(size, total - start) for start in range(0, total, size)]


def _median_seconds(benchmarks_dir: Path, rule: str) -> float:
    """Return the median seconds of a rule's jobs."""
    seconds = []
    for path in sorted((benchmarks_dir / rule).rglob("*.tsv")):
        with open(path, newline="", encoding="utf-8") as table:
            seconds += [float(row["s"]) for row in csv.DictReader(table, delimiter="\t")]
    if not seconds:
        wrong = f"no job of {rule} was measured here"
        raise InputError("simulate_cohort", wrong, "run `snakemake normalize` on some slides first")
    return median(seconds)


def _read_speeds(path: str | Path) -> dict[str, float]:
    """Return arm → MPix/s; of an arm that was timed on two slides, the first, larger one."""
    speeds: dict[str, float] = {}
    with open(path, newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            speeds.setdefault(row["arm"], float(row["mpix_per_s"]))
    for arm in ("copy", *MODES):
        if speeds.get(arm, 0.0) <= 0.0:
            remedy = "make it anew with `make benchmark-slides`"
            raise InputError(path, f"it has no speed of {arm}", remedy)
    return speeds


def _as_row(
    jobs: Sequence[Job], cluster: Cluster, price_core_hour: float, price_gpu_hour: float
) -> dict[str, float]:
    found = simulate(jobs, cluster)
    core_hours, gpu_hours = found.core_seconds / 3600, found.gpu_seconds / 3600
    return {
        "hours": found.seconds / 3600,
        "core_hours": core_hours,
        "gpu_hours": gpu_hours,
        "cost": core_hours * price_core_hour + gpu_hours * price_gpu_hour,
        "core_share": found.core_share,
        "storage_share": found.storage_share,
    }


def _assumptions(given: Mapping[str, Any], costs: SlideCosts) -> list[str]:
    """Return what the numbers rest on, a sentence each."""
    where = "a GPU" if costs.render_on_gpu else "a core"
    return [
        f"A slide has {given['slide_gigapixels']} gigapixels, {given['tissue_fraction']:.0%} of "
        f"them tissue, and {given['slide_gigabytes']} GB; its result is as large.",
        f"{given['nodes']} nodes of {given['cores_per_node']} cores and {given['gpus_per_node']} "
        f"GPUs share a storage of {given['storage_gigabytes_per_s']} GB/s, max-min fairly.",
        f"A job begins {given['job_start_s']} s after it could; {given['slides_per_job']} probes "
        "are one job, mask and result of a slide are one.",
        "Measured here, medians per slide: "
        + ", ".join(f"{rule} {seconds:.1f} s" for rule, seconds in costs.rules.items())
        + f" ({HASHED_GIGABYTES_PER_S} GB/s of hashing included, which is assumed).",
        f"A slide takes {costs.normalize['operator']:.0f} s by operator (measured speed, times its "
        f"size) and {costs.normalize['render']:.0f} s by render on {where}, where every pixel is "
        "copied and tissue is rendered.",
        "Every core is as fast as the one that was measured; nothing fails; training, evaluation "
        "and report are not in it.",
        f"A core costs {given['price_core_hour']} an hour and a GPU {given['price_gpu_hour']}, "
        "while a job holds it.",
    ]


def _as_text(rows: Sequence[Mapping[str, Any]], assumptions: Sequence[str]) -> str:
    lines = [
        "| mode | slides | hours | core hours | GPU hours | cost | cores busy | storage busy |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row['hours']:.3g} | {row['core_hours']:.3g} | {row['gpu_hours']:.3g}"
        shares = f"{row['core_share']:.0%} | {row['storage_share']:.0%}"
        lines.append(
            f"| {row['mode']} | {row['slides']} | {numbers} | {row['cost']:.3g} | {shares} |"
        )
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in assumptions)]) + "\n"


def _draw(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw hours and cost over slides, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, label in zip(
        figure.subplots(1, 2), ("hours", "cost"), ("hours until all are done", "cost"), strict=True
    ):
        for mode, colour in zip(MODES, ("#2a6f97", "#c1440e"), strict=True):
            mine = [row for row in rows if row["mode"] == mode]
            slides, values = [row["slides"] for row in mine], [row[key] for row in mine]
            axes.plot(slides, values, marker="o", color=colour, label=mode)
        axes.set(xscale="log", yscale="log", xlabel="slides", ylabel=label)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    with atomic_path(path) as partial:
        figure.savefig(partial, dpi=120, metadata={"Software": None})
