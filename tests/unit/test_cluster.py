"""What a run on Slurm looks at before it begins, on answers as Slurm gives them."""

from __future__ import annotations

import pytest

from stainfuser.cluster import (
    ask_slurm,
    cancel_orphans,
    check_partitions,
    collect_wanted,
    find_orphans,
    read_partitions,
)
from stainfuser.errors import ConfigError

SINFO = "cpu|(null)\ncpu|lustre:1\ngpu|gpu:a100:4(S:0-1),lustre:1\ngpu|gpu:2\nold|gpu\n"


def sinfo(command):
    assert command[0] == "sinfo"
    return SINFO


def test_partitions_have_the_gpus_of_their_best_node():
    assert read_partitions(sinfo) == {"cpu": 0, "gpu": 4, "old": 1}


def test_what_jobs_ask_is_collected_per_partition_and_rule():
    jobs = [("a", "cpu", 0), ("a", "cpu", 1), ("b", "gpu", 2), ("c", None, 0)]
    assert collect_wanted(jobs) == {"cpu": {"a": 1}, "gpu": {"b": 2}}


def test_a_missing_partition_is_named_with_those_there_are():
    with pytest.raises(ConfigError) as found:
        check_partitions({"gpus": {"train_normalizer": 1}}, sinfo)
    assert "'gpus' of train_normalizer" in str(found.value)
    assert "cpu, gpu, old" in str(found.value)


def test_a_partition_without_the_gpus_asked_for_is_named_with_one_that_has_them():
    with pytest.raises(ConfigError) as found:
        check_partitions({"old": {"train_normalizer": 2, "b": 0}}, sinfo)
    assert "of train_normalizer: gpu: 2 is asked for, a node there has 1; use gpu" in str(
        found.value
    )
    with pytest.raises(ConfigError, match="set gpu: 0"):
        check_partitions({"gpu": {"train_normalizer": 8}}, sinfo)
    check_partitions({"gpu": {"train_normalizer": 4}, "cpu": {"mask_tissue": 0}}, sinfo)


class Queue:
    """Jobs that end some questions after they were cancelled."""

    def __init__(self, folder, questions_until_gone):
        self.left = questions_until_gone
        self.cancelled = []
        self.jobs = [
            f"11|{folder}|rule_mask_tissue_wildcards_a",
            f"12|{folder}|(null)",
            f"13|{folder}/other|rule_x",
            f"14|{folder}|group_slide_input_probe_slide",
        ]

    def ask(self, command):
        if command[0] == "scancel":
            self.cancelled = command[1:]
            return ""
        self.left -= bool(self.cancelled)
        gone = self.cancelled if self.left <= 0 else []
        return "\n".join(job for job in self.jobs if job.split("|")[0] not in gone)


def test_orphans_of_this_folder_are_cancelled_and_awaited(tmp_path):
    queue = Queue(tmp_path, questions_until_gone=2)
    assert find_orphans(tmp_path, queue.ask) == ["11", "14"]
    assert cancel_orphans(tmp_path, queue.ask) == ["11", "14"]
    assert queue.cancelled == ["11", "14"] and queue.left == 0
    assert cancel_orphans(tmp_path, queue.ask) == []


def test_an_orphan_that_does_not_end_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="11, 14 of a run that was killed do not end"):
        cancel_orphans(tmp_path, Queue(tmp_path, 1000).ask, patience_s=0)


def test_a_slurm_that_does_not_answer_is_a_sentence():
    with pytest.raises(ConfigError, match="no-such-command does not answer"):
        ask_slurm(["no-such-command"])
    with pytest.raises(ConfigError, match="false does not answer"):
        ask_slurm(["false"])
