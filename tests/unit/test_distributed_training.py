"""Two processes train as one does with batches twice as large."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, sys
import torch
from accelerate import Accelerator
from torch import nn
from stainfuser.diffusion.optimization import OptimizationParameters, optimize

torch.set_num_threads(1)
folder, micro_batches = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
module = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=micro_batches)
count, index = accelerator.num_processes, accelerator.process_index

def loss_of(module, step, micro):
    generator = torch.Generator().manual_seed(step * 100 + micro * count + index)
    x = torch.randn(8, 4, generator=generator)
    return (module(x) - x.sum(1, keepdim=True)).square().mean()

from pathlib import Path
parameters = OptimizationParameters("diffusion", 6, 0.05, 2, 0.01, 0.9, 1.0, micro_batches, 3)
validate = lambda module: {"new": float(module[0].weight.square().mean())}
rows = optimize(module, loss_of, parameters, accelerator, Path(folder), validate)
if accelerator.is_main_process:
    weights = {name: weight.tolist() for name, weight in module.named_parameters()}
    Path(folder, "result.json").write_text(json.dumps([count, rows, weights]))
"""


def train(folder: Path, processes: int) -> list:
    folder.mkdir()
    program = folder / "train.py"
    program.write_text(PROGRAM)
    package = Path(__file__).resolve().parents[2] / "scripts"
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # What `accelerate launch` does on GPUs; on CPUs it starts one process only.
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node"]
        launcher += [str(processes), "--master_port", str(port)]
    else:
        launcher = [sys.executable]
    # One process takes the batches of both, one after the other, before each step.
    command = [*launcher, str(program), str(folder), str(3 - processes)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-2000:]
    return json.loads((folder / "result.json").read_text())


def test_two_processes_give_the_result_of_one(tmp_path):
    one = train(tmp_path / "one", 1)
    two = train(tmp_path / "two", 2)
    assert (one[0], two[0]) == (1, 2)
    for first, second in zip(one[1], two[1], strict=True):
        assert first[:2] == second[:2]
        assert first[2] == pytest.approx(second[2], rel=1e-4)
    for name, weights in one[2].items():
        flat = [x for row in weights for x in (row if isinstance(row, list) else [row])]
        other = [x for row in two[2][name] for x in (row if isinstance(row, list) else [row])]
        assert flat == pytest.approx(other, abs=1e-4)
