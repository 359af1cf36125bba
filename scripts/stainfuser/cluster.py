"""What a run on Slurm looks at before it begins: partitions, GPUs, jobs that a killed run left."""

from __future__ import annotations

import getpass
import os
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from stainfuser.errors import ConfigError

Ask = Callable[[list[str]], str]
# Snakemake's comments on the jobs it submits begin so.
OF_SNAKEMAKE = ("rule_", "group_")
# Slurm gives a cancelled job this long at most to end (KillWait), and its epilogue some time more.
PATIENCE_S = 120.0


Wanted = dict[str, dict[str, int]]
"""Partition → rule → GPUs that its jobs ask for."""


def ask_slurm(command: list[str]) -> str:
    """Return what a Slurm command prints; raise `ConfigError` if Slurm does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    else:
        if done.returncode == 0:
            return done.stdout
        problem = done.stderr.strip().splitlines()[0] if done.stderr.strip() else "no reason given"
    remedy = "start the run on a node from which jobs are submitted, or use the default profile"
    raise ConfigError("profile slurm", f"{command[0]} does not answer ({problem})", remedy)


def read_partitions(ask: Ask = ask_slurm) -> dict[str, int]:
    """Return partition → most GPUs of a node; each kind of node prints a line of its own."""
    found: dict[str, int] = {}
    for line in ask(["sinfo", "--noheader", "--format=%R|%G"]).splitlines():
        name, gres = line.split("|")
        found[name] = max(found.get(name, 0), _count_gpus(gres))
    return found


def check_partitions(wanted: Wanted, ask: Ask = ask_slurm) -> None:
    """Raise `ConfigError` for the first partition that is missing or has too few GPUs."""
    partitions = read_partitions(ask)
    for name, rules in sorted(wanted.items()):
        if name not in partitions:
            raise ConfigError(
                f"profile: slurm_partition {name!r} of {', '.join(sorted(rules))}",
                f"the cluster has no such partition, it has {', '.join(sorted(partitions))}",
                "set slurm_partition in the profile's config.yaml",
            )
        for rule, gpus in sorted(rules.items()):
            if gpus > partitions[name]:
                able = [other for other, most in sorted(partitions.items()) if most >= gpus]
                remedy = f"use {', '.join(able)}" if able else "set gpu: 0 to go without"
                raise ConfigError(
                    f"profile: slurm_partition {name!r} of {rule}",
                    f"gpu: {gpus} is asked for, a node there has {partitions[name]}",
                    f"{remedy}, under set-resources in the profile's config.yaml",
                )


def collect_wanted(jobs: Iterable[tuple[str, str | None, int]]) -> Wanted:
    """Return what (rule, partition, GPUs) of jobs come to, where they name a partition."""
    wanted: Wanted = {}
    for rule, partition, gpus in jobs:
        if partition:
            rules = wanted.setdefault(partition, {})
            rules[rule] = max(rules.get(rule, 0), gpus)
    return wanted


def find_orphans(folder: str | Path, ask: Ask = ask_slurm) -> list[str]:
    """Return the ids of this user's Snakemake jobs that work in `folder`."""
    ours = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%Z|%k"]
    ids = []
    for line in ask(ours).splitlines():
        job, place, comment = line.split("|", 2)
        if os.path.realpath(place) == os.path.realpath(folder):
            ids += [job] if comment.startswith(OF_SNAKEMAKE) else []
    return ids


def cancel_orphans(
    folder: str | Path, ask: Ask = ask_slurm, patience_s: float = PATIENCE_S
) -> list[str]:
    """Cancel jobs that a killed run left, and wait until they are gone; return their ids.

    A job that outlives its controller would write the files that the resumed run's job writes.
    Call it only when no other run is alive in this folder.

    Raises
    ------
    ConfigError
        A job does not end.
    """
    orphans = find_orphans(folder, ask)
    if not orphans:
        return []
    ask(["scancel", *orphans])
    deadline = time.monotonic() + patience_s
    while left := find_orphans(folder, ask):
        if time.monotonic() > deadline:
            raise ConfigError(
                "profile slurm",
                f"jobs {', '.join(left)} of a run that was killed do not end",
                "wait until squeue no longer shows them, and start again",
            )
        time.sleep(0.5)
    return orphans


def _count_gpus(gres: str) -> int:
    """Return the GPUs in a node's generic resources: `gpu:2`, `gpu:a100:4(S:0-1),lustre:1`."""
    count = 0
    for item in gres.split(","):
        parts = item.split("(")[0].split(":")
        if parts[0] == "gpu":
            count += int(parts[-1]) if parts[-1].isdigit() else 1
    return count
