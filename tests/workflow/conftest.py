"""The small demo, run once for all tests that look at its products."""

from __future__ import annotations

import pytest
from helpers_workflow import Run, run_workflow, small_options


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory) -> Run:
    """Run everything on the small demo once, for all tests that look at its products."""
    folder = tmp_path_factory.mktemp("small_demo")
    run = run_workflow(folder, "all", *small_options())
    assert run.status == 0, run.text[-4000:]
    return run
