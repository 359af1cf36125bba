"""Training in several processes: as many as the job was given GPUs, on one node or several.

What `accelerate launch` does for several GPUs: `torch.distributed.run` starts the processes, and
accelerate's `Accelerator` finds itself among them. On several nodes of a Slurm job `srun` starts a
launcher per node, and they find each other at the first node.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stainfuser.errors import TrainingError
from stainfuser.files import read_json, write_json
from stainfuser.logs import LOGGER

GIVEN = "CUDA_VISIBLE_DEVICES"
CALL, FAULT = "call.json", "fault.json"
PACKAGE_DIR = Path(__file__).resolve().parents[2]


def count_processes(gpus: int, nodes: int, seen: int, given: str | None) -> int:
    """Return how many processes train, all nodes together; 1: this one alone.

    Parameters
    ----------
    gpus
        GPUs the rule asked for, all nodes together. 1 is the rule's own wish: without a GPU
        anywhere a CPU takes its place.
    nodes
        Nodes of the job.
    seen
        GPUs that torch sees on this node.
    given
        Value of CUDA_VISIBLE_DEVICES: a scheduler sets it to the GPUs of the job.

    Raises
    ------
    TrainingError
        Fewer GPUs are there than were asked for.
    """
    is_given = bool(given) and given not in ("-1", "NoDevFiles")
    on_this_node = -(-gpus // nodes)
    if gpus and (is_given or gpus > 1) and seen < on_this_node:
        whose = "the job was given" if is_given else "the rule asks for"
        raise TrainingError(
            "train_normalizer",
            f"{whose} {on_this_node} GPU{'s' * (on_this_node > 1)} per node, torch sees {seen}",
            "install a torch that has CUDA, or train on CPUs with "
            "--set-resources train_normalizer:gpu=0",
        )
    return max(gpus, nodes) if gpus > 1 or nodes > 1 else 1


def is_launched() -> bool:
    """Tell whether this process is one of several that train."""
    return "LOCAL_RANK" in os.environ


def launch(
    module: str,
    call: Mapping[str, Any],
    work_dir: str | Path,
    *,
    processes: int,
    nodes: int = 1,
    threads: int = 1,
) -> None:
    """Run `module` with a call's keyword arguments in several processes, and wait for them.

    Parameters
    ----------
    module
        Module whose main program is `serve`.
    call
        Keyword arguments as JSON holds them.
    work_dir
        Folder that all nodes see.
    processes, nodes
        Processes, all nodes together.
    threads
        CPU threads per node, shared by its processes.

    Raises
    ------
    TrainingError
        With the sentence of the process that failed, or because one was lost. The last checkpoint
        stays, and the same call goes on from it.
    """
    work_dir = Path(work_dir)
    work_dir.mkdir(parents=True, exist_ok=True)
    (work_dir / FAULT).unlink(missing_ok=True)
    per_node = processes // nodes
    share = max(threads // per_node, 1)
    write_json(work_dir / CALL, {**_as_json(call), "threads": share})
    LOGGER.info("train: %d processes on %d nodes, %d threads each", processes, nodes, share)
    command = [*_launcher(per_node, nodes, threads), "-m", module, str(work_dir)]
    status = subprocess.run(
        command, env=_environment(share), preexec_fn=_end_with_parent, check=False
    ).returncode
    if status == 0:
        return
    if (work_dir / FAULT).exists():
        fault = read_json(work_dir / FAULT)
        raise TrainingError(fault["where"], fault["wrong"], fault["remedy"])
    raise TrainingError(
        "train_normalizer",
        f"one of {processes} processes was lost (status {status})",
        "start the run again: training goes on from its last checkpoint",
    )


def serve(stage: Callable[..., None]) -> None:
    """Be one of several processes: take the call from the folder the command line names, and do it.

    A fault that has a sentence is left beside the call, where `launch` finds it.
    """
    from stainfuser.errors import StainFuserError

    work_dir = Path(sys.argv[1])
    try:
        stage(**read_json(work_dir / CALL))
    except StainFuserError as error:
        fault = {"where": error.where, "wrong": error.wrong, "remedy": error.remedy}
        write_json(work_dir / FAULT, fault)
        raise SystemExit(1) from None


def _launcher(per_node: int, nodes: int, threads: int) -> list[str]:
    """Return the command that starts the processes of every node."""
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={per_node}"]
    if nodes == 1:
        # Any free port of this machine: several trainings may run on it.
        return [*command, "--standalone"]
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise TrainingError(
            "train_normalizer",
            f"{nodes} nodes are asked for outside of a Slurm job",
            "use the profile slurm, or one node",
        )
    # The port depends on the job, so that two jobs on one node do not meet.
    meeting = f"--rdzv-endpoint={socket.gethostname()}:{20000 + int(job) % 20000}"
    step = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return [
        *step,
        f"--cpus-per-task={threads}",
        *command,
        f"--nnodes={nodes}",
        "--rdzv-backend=c10d",
        meeting,
        f"--rdzv-id={job}",
    ]


def _environment(threads: int) -> dict[str, str]:
    paths = [str(PACKAGE_DIR), os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(part for part in paths if part)
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": path}


def _as_json(call: Mapping[str, Any]) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in call.items()}


def _end_with_parent() -> None:
    """Let the kernel end the launcher when this process is killed: nobody would wait for it."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


__all__: Sequence[str] = ("count_processes", "is_launched", "launch", "serve")
