"""A run killed at five moments and started again ends in the bytes of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from helpers_workflow import command, fingerprints, run_workflow, small_options

pytestmark = pytest.mark.workflow
PRODUCTS = [
    "results/tiles/*.h5",
    "results/clusters/*",
    "results/pairs/**/*.h5",
    "results/pairs/*.csv",
    "results/model/**/*",
    "results/train/losses.csv",
    "results/normalized/**/*",
]
# Each run is killed as soon as one of these files exists.
MOMENTS = [
    "results/slides/*.json",
    "results/tiles/*.h5",
    "results/pairs/stylized/*.h5",
    "results/work/train_normalizer/**/*.safetensors",
    # Slides wait for no training and may be done by now; kills in a slide have tests of their own.
    "results/evaluation/metrics/*.parquet",
]


def _kill_when(folder: Path, pattern: str, give_up_s: float = 300.0) -> bool:
    """Start the run, kill its whole process group when the pattern matches; tell if it did."""
    with open(folder / "killed.log", "ab") as log:
        run = subprocess.Popen(
            command(folder, "all", *small_options()),
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + give_up_s
    while run.poll() is None and time.monotonic() < deadline:
        if any(path.is_file() for path in folder.glob(pattern)):
            time.sleep(0.3)
            break
        time.sleep(0.05)
    alive = run.poll() is None
    if alive:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return alive


def test_killed_five_times_the_products_are_the_same(small_demo, tmp_path):
    killed = [_kill_when(tmp_path, pattern) for pattern in MOMENTS]
    assert all(killed), f"the run ended before it could be killed: {killed}"
    last = run_workflow(tmp_path, "all", *small_options())
    assert last.status == 0, last.text[-4000:]
    expected = fingerprints(small_demo.folder, PRODUCTS)
    assert len(expected) > 10
    assert fingerprints(tmp_path, PRODUCTS) == expected
