"""Run the real workflow in a folder of its own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SMALL = Path(__file__).with_name("small.yaml")


@dataclass(frozen=True)
class Run:
    """One finished call of snakemake."""

    status: int
    text: str
    folder: Path


def command(folder: Path, *arguments: str) -> list[str]:
    """Return the call of snakemake on this checkout's Snakefile, its results under `folder`."""
    snakefile = ["-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    return [sys.executable, "-m", "snakemake", *snakefile, *arguments]


def run_workflow(folder: Path, *arguments: str, **variables: str) -> Run:
    """Run snakemake to its end, with variables of its environment, and return what it said."""
    done = subprocess.run(
        command(folder, *arguments),
        cwd=folder,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout, folder)


def small_options() -> list[str]:
    """Return the options that make the demo small."""
    return ["--configfile", str(SMALL)]


def fingerprints(folder: Path, patterns: list[str]) -> dict[str, str]:
    """Return path → SHA-256 of every file the patterns match below `folder`."""
    paths = sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in paths
    }
