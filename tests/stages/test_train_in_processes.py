"""Training in several processes: the result of one, a process lost and resumed, devices missing."""

from __future__ import annotations

import csv
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
from test_train_normalizer import OPTIONS, run_stage, write_pairs

from stainfuser.diffusion.launching import CALL, count_processes, launch, serve
from stainfuser.errors import ConfigError, TrainingError
from stainfuser.files import read_json
from stainfuser.stages.train_normalizer import train_normalizer

# Long enough to be killed between two checkpoints.
STEPS = 40
MODULE = "stainfuser.stages.train_normalizer"


def call_of(folder: Path, pairs: Path, **changes) -> dict:
    """Return the keyword arguments of a training whose products lie in `folder`."""
    names = ("losses.csv", "samples.png", "curves.png", "validation.json")
    paths = {f"{Path(name).stem}_path": str(folder / name) for name in names}
    paths.update(model_dir=str(folder / "model"), work_dir=str(folder / "work"))
    return {
        **OPTIONS,
        "steps": STEPS,
        **paths,
        "pairs_path": str(pairs),
        "seed": 1,
        "device": "cpu",
        **changes,
    }


def launch_two(folder: Path, pairs: Path, **changes) -> None:
    launch(MODULE, call_of(folder, pairs, **changes), folder / "work", processes=2)


def losses(folder: Path) -> list[tuple[str, str, float]]:
    with open(folder / "losses.csv", encoding="utf-8") as table:
        return [(row["phase"], row["step"], float(row["loss"])) for row in csv.DictReader(table)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.h5")


@pytest.fixture(scope="module")
def two(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    launch_two(folder, pairs)
    return folder


def test_two_processes_make_the_model_of_one_with_twice_the_batches(two, pairs, tmp_path):
    run_stage(tmp_path, pairs, steps=STEPS, gradient_accumulation=2)
    one = losses(tmp_path)
    assert [row[:2] for row in losses(two)] == [row[:2] for row in one]
    for (*_, together), (*_, alone) in zip(losses(two), one, strict=True):
        assert together == pytest.approx(alone, rel=1e-3)
    assert (two / "model" / "model_index.json").exists()


def kill_one_process(folder: Path) -> int:
    """Wait for a checkpoint and kill a training process, not the launcher; return its id."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(folder.glob("work/*/diffusion/step_*")):
            for child in psutil.Process().children(recursive=True):
                if "LOCAL_RANK" in child.environ() and child.environ()["LOCAL_RANK"] == "1":
                    os.kill(child.pid, signal.SIGKILL)
                    return child.pid
        time.sleep(0.01)
    raise AssertionError("no checkpoint was written")


def test_a_lost_process_is_one_sentence_and_training_goes_on_from_its_checkpoint(
    two, pairs, tmp_path
):
    fault: list[TrainingError] = []

    def train() -> None:
        try:
            launch_two(tmp_path, pairs)
        except TrainingError as error:
            fault.append(error)

    training = threading.Thread(target=train)
    training.start()
    kill_one_process(tmp_path)
    training.join()
    assert "one of 2 processes was lost" in str(fault[0])
    assert not (tmp_path / "model").exists()
    kept = max(tmp_path.glob("work/*/diffusion/step_*"))
    assert 0 < int(kept.name.removeprefix("step_")) < STEPS
    launch_two(tmp_path, pairs)
    assert losses(tmp_path) == losses(two)


def test_a_fault_of_a_process_is_its_sentence(monkeypatch, tmp_path):
    def stage(**call) -> None:
        raise ConfigError("train.objective", "'x' is unknown", f"choose {call['seed']}")

    def start(command, **_):
        monkeypatch.setattr("sys.argv", [MODULE, command[-1]])
        with pytest.raises(SystemExit):
            serve(stage)
        return type("Done", (), {"returncode": 1})

    monkeypatch.setattr("subprocess.run", start)
    with pytest.raises(TrainingError, match=r"train\.objective: 'x' is unknown; choose 1\."):
        launch(MODULE, {"seed": 1}, tmp_path, processes=2)


def test_a_process_takes_its_share_of_the_threads(monkeypatch, tmp_path):
    monkeypatch.setattr("subprocess.run", lambda *_, **__: type("Done", (), {"returncode": 0}))
    launch(MODULE, {"seed": 1}, tmp_path, processes=2, threads=5)
    assert read_json(tmp_path / CALL) == {"seed": 1, "threads": 2}


def test_as_many_processes_as_gpus_and_one_without():
    assert count_processes(1, 1, seen=0, given=None) == 1
    assert count_processes(0, 1, seen=4, given=None) == 1
    assert count_processes(1, 1, seen=1, given="0") == 1
    assert count_processes(4, 1, seen=4, given="0,1,2,3") == 4
    assert count_processes(8, 2, seen=4, given="0,1,2,3") == 8
    assert count_processes(0, 2, seen=0, given=None) == 2


@pytest.mark.parametrize(
    ("gpus", "nodes", "seen", "given", "sentence"),
    [
        (1, 1, 0, "0", "the job was given 1 GPU per node, torch sees 0"),
        (4, 1, 2, None, "the rule asks for 4 GPUs per node, torch sees 2"),
        (8, 2, 0, "0,1,2,3", "the job was given 4 GPUs per node, torch sees 0"),
    ],
)
def test_too_few_devices_are_one_sentence(gpus, nodes, seen, given, sentence):
    with pytest.raises(TrainingError, match=sentence):
        count_processes(gpus, nodes, seen, given)


def test_two_gpus_where_there_are_fewer_is_one_sentence(pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(TrainingError, match="asks for 2 GPUs per node, torch sees 1"):
        train_normalizer(**call_of(tmp_path, pairs, gpus=2))


def test_two_nodes_outside_of_a_job_is_one_sentence(pairs, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises((TrainingError, ConfigError), match="2 nodes are asked for outside"):
        train_normalizer(**call_of(tmp_path, pairs, gpus=0, nodes=2))
