"""A cluster as a model: nodes that take jobs in order, and one storage that running jobs share."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Job:
    """`seconds` of work that read and write `gigabytes` evenly, after the jobs at these indices."""

    seconds: float
    gigabytes: float = 0.0
    cores: int = 1
    gpus: int = 0
    after: tuple[int, ...] = ()


@dataclass(frozen=True)
class Cluster:
    """Equal nodes, GB/s of the shared storage, and seconds until a job that is free begins work."""

    nodes: int
    cores: int
    gpus: int
    gigabytes_per_s: float
    start_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """Seconds until all jobs are done, and what they held meanwhile.

    `storage_share` is the mean use of the storage's bandwidth, `core_share` of all cores.
    """

    seconds: float
    core_seconds: float
    gpu_seconds: float
    storage_share: float
    core_share: float


def simulate(jobs: Sequence[Job], cluster: Cluster) -> Outcome:
    """Run the jobs in their order as cores and GPUs become free: event after event.

    A job whose predecessors are done takes the first node with enough free cores and GPUs; jobs
    that ask for the same wait in one line, and a line does not hold up the others. A job asks the
    storage for gigabytes / seconds; where all together ask for more than there is, it is divided
    max-min fairly, and who gets less than asked for works as much slower.

    Raises
    ------
    ValueError
        A job fits on no node, or waits for itself.
    """
    return _Run(jobs, cluster).to_end()


def fair_speeds(demands: np.ndarray, supply: float) -> np.ndarray:
    """Return speeds (n,) in [0, 1] of jobs that ask for `demands` GB/s, shared max-min fairly."""
    if demands.sum() <= supply:
        return np.ones(len(demands))
    ascending = np.sort(demands)
    left = supply - np.concatenate([[0.0], np.cumsum(ascending)[:-1]])
    shares = left / np.arange(len(demands), 0, -1)
    # The first job, from the least, that asks for more than an equal share of what is left.
    level = shares[np.argmax(ascending > shares)]
    return np.minimum(1.0, level / np.maximum(demands, 1e-30))


class _Run:
    """State of a simulation; slots are the jobs that run now."""

    def __init__(self, jobs: Sequence[Job], cluster: Cluster) -> None:
        self.jobs, self.cluster = jobs, cluster
        self.free_cores = np.full(cluster.nodes, cluster.cores)
        self.free_gpus = np.full(cluster.nodes, cluster.gpus)
        self.waits_for = [len(job.after) for job in jobs]
        self.followers: list[list[int]] = [[] for _ in jobs]
        self.lines: dict[tuple[int, int], deque[int]] = {}
        self.running: list[tuple[int, int]] = []
        self.left = np.empty(0)
        self.demand = np.empty(0)
        self.core_seconds = self.gpu_seconds = self.moved = 0.0
        for index, job in enumerate(jobs):
            if job.cores > cluster.cores or job.gpus > cluster.gpus:
                raise ValueError(f"job {index} fits on no node")
            for earlier in job.after:
                self.followers[earlier].append(index)
            if not job.after:
                self._queue(index)

    def to_end(self) -> Outcome:
        now, done = 0.0, 0
        self._start()
        while self.running:
            speeds = fair_speeds(self.demand, self.cluster.gigabytes_per_s)
            passed = max(float(np.min(self.left / speeds)), 0.0)
            now += passed
            self.left = self.left - passed * speeds
            self.moved += passed * float((speeds * self.demand).sum())
            self._count_held(passed)
            done += self._finish(np.flatnonzero(self.left <= 1e-9))
            self._start()
        if done < len(self.jobs):
            raise ValueError("jobs wait for one another")
        cores = self.cluster.nodes * self.cluster.cores
        return Outcome(
            seconds=now,
            core_seconds=self.core_seconds,
            gpu_seconds=self.gpu_seconds,
            storage_share=self.moved / max(now * self.cluster.gigabytes_per_s, 1e-30),
            core_share=self.core_seconds / max(now * cores, 1e-30),
        )

    def _queue(self, index: int) -> None:
        job = self.jobs[index]
        self.lines.setdefault((job.gpus, job.cores), deque()).append(index)

    def _start(self) -> None:
        """Start what fits, those that need GPUs first, so that others do not take their cores."""
        left, demand = [], []
        for need in sorted(self.lines, reverse=True):
            line = self.lines[need]
            while line:
                fits = (self.free_cores >= need[1]) & (self.free_gpus >= need[0])
                node = int(np.argmax(fits))
                if not fits[node]:
                    break
                index = line.popleft()
                job = self.jobs[index]
                self.free_cores[node] -= job.cores
                self.free_gpus[node] -= job.gpus
                self.running.append((index, node))
                seconds = job.seconds + self.cluster.start_s if job.seconds else 0.0
                left.append(seconds)
                demand.append(job.gigabytes / seconds if seconds else 0.0)
        if left:
            self.left = np.concatenate([self.left, left])
            self.demand = np.concatenate([self.demand, demand])

    def _finish(self, slots: np.ndarray) -> int:
        """Free what jobs in these slots held, and queue who waited for them."""
        for slot in slots:
            index, node = self.running[slot]
            self.free_cores[node] += self.jobs[index].cores
            self.free_gpus[node] += self.jobs[index].gpus
            for follower in self.followers[index]:
                self.waits_for[follower] -= 1
                if self.waits_for[follower] == 0:
                    self._queue(follower)
        gone = set(slots.tolist())
        self.running = [item for slot, item in enumerate(self.running) if slot not in gone]
        self.left = np.delete(self.left, slots)
        self.demand = np.delete(self.demand, slots)
        return len(gone)

    def _count_held(self, seconds: float) -> None:
        held = self.cluster.nodes * self.cluster.cores - int(self.free_cores.sum())
        self.core_seconds += seconds * held
        gpus = self.cluster.nodes * self.cluster.gpus - int(self.free_gpus.sum())
        self.gpu_seconds += seconds * gpus
