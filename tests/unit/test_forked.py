"""Calls in a child process: result, failure, and a child that is killed.

Each case runs in a Python of its own: the tests' process has threads and torch by now.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from stainfuser.diffusion.forked import can_fork

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks safely")


def python(code: str) -> str:
    """Run code that may use `ForkedCall`, and return what it prints."""
    start = "import os, signal, time\nfrom stainfuser.diffusion.forked import *\n"
    run = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_the_function_runs_in_another_process_and_its_result_comes_back():
    code = "print(can_fork())\npid = ForkedCall(os.getpid).result()\nprint(pid != os.getpid())"
    assert python(code).split() == ["True", "True"]


@pytest.mark.parametrize("code", ["1 / 0", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_a_failure_and_a_killed_child_give_nothing(code):
    assert python(f"print(ForkedCall(lambda: {code}).result())") == "None"


def test_a_child_that_is_not_wanted_any_more_is_ended():
    code = "call = ForkedCall(lambda: time.sleep(600))\ncall.close()\nprint('ended')"
    assert python(code) == "ended"


def test_a_process_with_torch_is_not_forked():
    pytest.importorskip("torch")
    assert not can_fork()
