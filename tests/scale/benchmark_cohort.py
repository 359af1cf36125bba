"""How long Snakemake plans a large cohort: a dry run of so many slides, none or all of them probed.

    python tests/scale/benchmark_cohort.py --slides 10000

Slides are files of one byte and probes' records say that they are well, so that nothing is timed
but the workflow's and Snakemake's own work. Exits with 1 above 60 s of processor time (which other
work on the machine stretches less than the clock's) or 2 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT_S, LIMIT_MB = 60.0, 2000.0
# Starts a program, writes its processor seconds and peak memory (kB) to a file. A child of a large
# process counts that one's memory as its own peak; this one is small.
MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss, file=open(sys.argv[1], "w"))
sys.exit(status)
"""
INDEX = "slide,kind,verdict,reason,remedy,width_px,height_px,mpp,sha256\n"


@dataclass(frozen=True)
class DryRun:
    """Wall-clock and processor seconds, peak memory, jobs planned."""

    wall_s: float
    processor_s: float
    memory_mb: float
    jobs: int


def make_cohort(folder: Path, slides: int, probed: bool) -> None:
    """Write a table of slides, and, if `probed`, what their probes and the index would say."""
    (folder / "slides").mkdir(parents=True)
    names = [f"slide-{number:06d}" for number in range(slides)]
    rows = [f"{name},slides/{name}.svs\n" for name in names]
    (folder / "cohort.csv").write_text("".join(["slide,path\n", *rows]))
    _write_reference(folder / "reference.png")
    for name in names:
        (folder / "slides" / f"{name}.svs").write_bytes(b"x")
    if not probed:
        return
    results = folder / "results" / "slides"
    results.mkdir(parents=True)
    for name in names:
        (results / f"{name}.json").write_text("{}")
    sizes = [
        f"{name},slide,ok,,,100000,80000,0.25,{number:064x}\n" for number, name in enumerate(names)
    ]
    (results / "index.csv").write_text("".join([INDEX, *sizes]))


def dry_run(folder: Path, target: str) -> DryRun:
    """Let Snakemake plan `target`; raise `RuntimeError` with its words if it cannot."""
    options = ["-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    asked = ["-n", "--quiet", "rules", "--config", "slides=cohort.csv", "target=reference.png"]
    program = [sys.executable, "-m", "snakemake", *options, *asked, "--", target]
    log, used = folder / "dry_run.log", folder / "used.txt"
    started = time.monotonic()
    with open(log, "wb") as out:
        command = [sys.executable, "-c", MEASURE, str(used), *program]
        status = subprocess.call(command, cwd=folder, stdout=out, stderr=out)
    wall_s = time.monotonic() - started
    text = log.read_text()
    if status != 0:
        raise RuntimeError(text[-2000:])
    totals = [line.split()[1] for line in text.splitlines() if line.startswith("total ")]
    processor_s, peak_kb = map(float, used.read_text().split())
    return DryRun(wall_s, processor_s, peak_kb / 1000, int(totals[0]))


def _write_reference(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 120, 160)).save(path)


def main() -> None:
    """Print a row per target, of a cohort that is new and of one that is probed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, default=10000)
    parser.add_argument("--targets", nargs="+", default=["normalize", "all"])
    asked = parser.parse_args()
    print(
        f"{'cohort':10} {'target':10} {'jobs':>8} {'wall s':>8} {'CPU s':>8} {'MB':>8}", flush=True
    )
    is_over = False
    for state in ("new", "probed"):
        with tempfile.TemporaryDirectory() as temporary:
            make_cohort(Path(temporary), asked.slides, state == "probed")
            for target in asked.targets:
                run = dry_run(Path(temporary), target)
                numbers = f"{run.jobs:8d} {run.wall_s:8.1f} {run.processor_s:8.1f}"
                print(f"{state:10} {target:10} {numbers} {run.memory_mb:8.0f}", flush=True)
                is_over |= run.processor_s > LIMIT_S or run.memory_mb > LIMIT_MB
    if is_over:
        sys.exit(f"Over the limit of {LIMIT_S:.0f} s of processor time or {LIMIT_MB:.0f} MB.")


if __name__ == "__main__":
    main()
