"""The model of a cluster, on cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from stainfuser.cluster_model import Cluster, Job, fair_speeds, simulate

FAST = 1e9


def seconds(jobs, **cluster) -> float:
    return simulate(jobs, Cluster(**{"nodes": 1, "cores": 1, "gpus": 0, **cluster})).seconds


def test_jobs_on_one_core_follow_one_another():
    assert seconds([Job(10), Job(5), Job(1)], gigabytes_per_s=FAST) == pytest.approx(16)


def test_a_list_is_scheduled_in_its_order():
    # Two cores: 4 and 3 begin; 3 ends, 2 begins (till 5); 4 ends, 6 begins (till 10).
    jobs = [Job(4), Job(3), Job(2), Job(6)]
    assert seconds(jobs, cores=2, gigabytes_per_s=FAST) == pytest.approx(10)


def test_a_job_waits_for_those_before_it():
    jobs = [Job(2), Job(7), Job(1, after=(0, 1)), Job(3, after=(2,))]
    assert seconds(jobs, cores=4, gigabytes_per_s=FAST) == pytest.approx(11)


def test_every_job_takes_time_to_begin_but_a_mere_barrier_does_not():
    jobs = [Job(2), Job(0, cores=0, after=(0,)), Job(3, after=(1,))]
    assert seconds(jobs, gigabytes_per_s=FAST, start_s=10) == pytest.approx(25)


def test_two_jobs_that_read_at_full_speed_share_the_storage():
    # Each reads 10 GB in 10 s, i.e. 1 GB/s; the storage has 1 GB/s for both.
    found = simulate([Job(10, 10), Job(10, 10)], Cluster(1, 2, 0, 1.0))
    assert found.seconds == pytest.approx(20)
    assert found.storage_share == pytest.approx(1)
    assert found.core_seconds == pytest.approx(40)


def test_a_job_that_reads_little_is_not_slowed_by_one_that_reads_much():
    # Max-min: 0.2 GB/s asked for and given, the other gets 0.8 of the 1.6 it asks for.
    assert fair_speeds(np.array([1.6, 0.2]), 1.0) == pytest.approx([0.5, 1.0])
    # The small one ends at 10 s; then the other, half done after 10 s of half speed, runs at 1/1.6.
    jobs = [Job(10, 16), Job(10, 2)]
    assert seconds(jobs, cores=2, gigabytes_per_s=1.0) == pytest.approx(10 + 5 * 1.6)


def test_cores_of_a_job_lie_on_one_node():
    # Two nodes of two cores: three jobs of two cores take two turns, three of one core take one.
    wide = [Job(5, cores=2)] * 3
    assert seconds(wide, nodes=2, cores=2, gigabytes_per_s=FAST) == pytest.approx(10)
    assert seconds([Job(5)] * 3, nodes=2, cores=2, gigabytes_per_s=FAST) == pytest.approx(5)


def test_those_that_wait_for_a_gpu_do_not_hold_up_the_others():
    jobs = [Job(10, gpus=1), Job(10, gpus=1), Job(10), Job(10)]
    found = simulate(jobs, Cluster(1, 2, 1, FAST))
    # GPU and core job, GPU and core job.
    assert found.seconds == pytest.approx(20)
    assert found.gpu_seconds == pytest.approx(20)
    assert found.core_share == pytest.approx(1)


def test_a_job_no_node_can_take_is_refused():
    with pytest.raises(ValueError, match="fits on no node"):
        simulate([Job(1, cores=3)], Cluster(9, 2, 0, FAST))
    with pytest.raises(ValueError, match="wait for one another"):
        simulate([Job(1, after=(0,))], Cluster(1, 1, 0, FAST))


def test_random_jobs_keep_the_bounds_of_list_scheduling():
    rng = np.random.default_rng(0)
    times = rng.uniform(1, 9, 200)
    found = seconds([Job(time) for time in times], cores=8, gigabytes_per_s=FAST)
    least = max(times.sum() / 8, times.max())
    assert least <= found <= times.sum() / 8 + times.max()
