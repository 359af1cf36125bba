"""The small demo on a real Slurm: short of memory, its controller killed, then the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers_workflow import REPOSITORY, Run, fingerprints, run_workflow, small_options
from test_kill import PRODUCTS
from test_late_failure import _damage_largest_tile as damage_largest_tile

sys.path.insert(0, str(REPOSITORY / "tests" / "slurm"))
import one_node_slurm

pytestmark = pytest.mark.workflow
# Rules see their pretend GPUs, torch does not: the demo trains on CPUs.
ON_CPUS = ["train_normalizer:gpu=0", "train_normalizer:slurm_partition=cpu"]
# What else a run ends in and repeats to the byte; pictures and pages show how long jobs took.
EVALUATED = ["results/evaluation/summary.csv", "results/evaluation/**/*.parquet"]
# A first attempt with less memory than Python itself takes, a second one with enough.
SHORT_OF_MEMORY = ["make_demo_target:mem_mb=30 if attempt == 1 else 1000 * attempt"]
# Short jobs of so many slides are one: as in the profile, made small.
GROUPS = ["--groups", "transfer_style=styles"]
COMPONENTS = ["--group-components", "slide_input=4", "styles=12"]


@pytest.fixture(scope="module")
def slurm() -> Iterator[None]:
    """Start a Slurm of one node for this module; one that runs already is used and kept."""
    was_up = one_node_slurm.is_up()
    try:
        one_node_slurm.start()
    except RuntimeError as error:
        pytest.skip(f"no Slurm on this machine: {error}")
    yield
    if not was_up:
        one_node_slurm.stop()


@pytest.fixture(scope="module")
def environment(slurm, tmp_path_factory) -> dict[str, str]:
    """Return the environment of a user on the cluster, who has the plugin of Snakemake."""
    folder = tmp_path_factory.mktemp("plugin")
    pins = ["-r", "envs/requirements-slurm.txt", "-c", "envs/constraints.txt"]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target"]
    done = subprocess.run(
        [*install, str(folder), *pins], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"no package index: {done.stderr.strip()[-300:]}")
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
    return {**one_node_slurm.environment(), **own}


def slurm_command(folder: Path, *arguments: str) -> list[str]:
    """Return the call of snakemake with the profile, told that this Slurm has no accounts."""
    profile = REPOSITORY / "workflow" / "profiles" / "slurm"
    program = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile")]
    site = ["--slurm-no-account", "--slurm-status-command", "squeue", "--latency-wait", "5"]
    patience = ["--slurm-init-seconds-before-status-checks", "1", "--cores", "2"]
    return [
        *program,
        *["--directory", str(folder), "--workflow-profile", str(profile)],
        *site,
        *patience,
        *GROUPS,
        *COMPONENTS,
        *small_options(),
        *arguments,
    ]


def run_on_slurm(folder: Path, environment: dict[str, str], *arguments: str) -> Run:
    """Run snakemake on the cluster to its end and return what it said."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        slurm_command(folder, *arguments),
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout, folder)


def jobs_of(environment: dict[str, str], *, state: str = "all") -> list[list[str]]:
    """Return [rule or group, state, memory, partition] of jobs, the oldest first."""
    asked = ["squeue", "-h", "-S", "i", "-t", state, "-o", "%k|%T|%m|%P"]
    found = subprocess.run(asked, env=environment, capture_output=True, text=True, check=True)
    return [line.split("|") for line in found.stdout.splitlines()]


def kill_when(
    process: subprocess.Popen, environment: dict[str, str], rule: str, give_up_s: float = 900.0
) -> set[str]:
    """Kill the controller when a job with `rule` runs; return all states that jobs were seen in."""
    seen: set[str] = set()
    deadline = time.monotonic() + give_up_s
    while process.poll() is None and time.monotonic() < deadline:
        running = jobs_of(environment, state="running,pending")
        seen.update(job[1] for job in running)
        if any(rule in job[0] and job[1] == "RUNNING" for job in running):
            break
        time.sleep(0.5)
    assert process.poll() is None, "the run ended before it could be killed"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    return seen


@pytest.fixture(scope="module")
def killed_and_resumed(environment, tmp_path_factory) -> tuple[Run, set[str], list, list]:
    """Return the resumed run, the states seen before the kill, what the kill left, all jobs."""
    folder = tmp_path_factory.mktemp("run")
    asked = ["--set-resources", *ON_CPUS, *SHORT_OF_MEMORY, "--", "all"]
    with open(folder / "killed.log", "wb") as log:
        process = subprocess.Popen(
            slurm_command(folder, *asked), cwd=folder, env=environment, stdout=log, stderr=log
        )
        seen = kill_when(process, environment, "normalize_slide")
    orphans = jobs_of(environment, state="running,pending")
    resumed = run_on_slurm(folder, environment, *asked)
    return resumed, seen, orphans, jobs_of(environment)


def test_a_killed_controller_is_resumed_to_the_bytes_of_a_local_run(killed_and_resumed, small_demo):
    resumed, _, orphans, _ = killed_and_resumed
    assert resumed.status == 0, resumed.text[-4000:]
    assert any("normalize_slide" in name for name, *_ in orphans)
    assert "cancelled jobs of a killed run" in resumed.text
    expected = fingerprints(small_demo.folder, PRODUCTS + EVALUATED)
    assert "results/evaluation/summary.csv" in expected and len(expected) > 10
    assert fingerprints(resumed.folder, PRODUCTS + EVALUATED) == expected
    assert (resumed.folder / "results/report/index.html").stat().st_size > 100_000


def test_an_audit_declares_what_the_cluster_made_intact(killed_and_resumed):
    run = run_workflow(killed_and_resumed[0].folder, "audit", *small_options())
    assert run.status == 0, run.text[-4000:]
    assert "Intact: everything is as it was made" in run.text


def test_jobs_queue_and_groups_of_short_ones_are_one_job(killed_and_resumed):
    _, seen, _, jobs = killed_and_resumed
    assert {"PENDING", "RUNNING"} <= seen
    assert sum("probe_slide" in name for name, *_ in jobs) == 1


def test_a_job_short_of_memory_runs_again_with_more(killed_and_resumed):
    *_, jobs = killed_and_resumed
    attempts = [(memory, state) for name, state, memory, _ in jobs if "make_demo_target" in name]
    assert [memory for memory, _ in attempts] == ["30M", "2000M"]
    assert attempts[0][1] != "COMPLETED" and attempts[1][1] == "COMPLETED"


def test_a_slide_that_fails_takes_no_other_along(killed_and_resumed, environment, tmp_path):
    demo = killed_and_resumed[0].folder / "results" / "demo"
    (tmp_path / "slides").mkdir()
    for name, source in (("good", "fjord-1"), ("damaged", "mesa-1")):
        shutil.copy(demo / f"slides/{source}.svs", tmp_path / f"slides/{name}.svs")
    damage_largest_tile(tmp_path / "slides/damaged.svs")
    asked = ["--retries", "0", "--config", "slides=slides", f"target={demo / 'target.png'}"]
    run = run_on_slurm(tmp_path, environment, *asked, "--", "normalize")
    assert run.status == 1
    assert "left out: damaged: corrupt: " in run.text
    made = (tmp_path / "results/normalized/target").glob("*.svs")
    assert [path.name for path in made] == ["good.svs"]


def test_a_gpu_that_torch_does_not_see_is_one_sentence(killed_and_resumed, environment):
    resumed, *_ = killed_and_resumed
    asked = ["--retries", "0", "--forcerun", "train_normalizer", "--", "results/model"]
    run = run_on_slurm(resumed.folder, environment, *asked)
    assert run.status == 1
    assert jobs_of(environment)[-1][3] == "gpu"
    log = (resumed.folder / "results/logs/train_normalizer.log").read_text()
    assert "1 GPU" in log and "torch sees 0" in log and "Traceback" not in log


def test_a_missing_partition_is_one_sentence(environment, tmp_path):
    wrong = ["--default-resources", "slurm_partition=nowhere", "--", "tiles"]
    run = run_on_slurm(tmp_path, environment, *wrong)
    assert run.status == 1
    assert "the cluster has no such partition, it has cpu, gpu" in run.text
    assert "Traceback" not in run.text


def test_more_gpus_than_a_node_has_is_one_sentence(environment, tmp_path):
    asked = ["--set-resources", "make_demo_slide:gpu=3", "make_demo_slide:slurm_partition=gpu"]
    run = run_on_slurm(tmp_path, environment, *asked, "--", "tiles")
    assert run.status == 1
    assert "of make_demo_slide: gpu: 3 is asked for, a node there has 2" in run.text
