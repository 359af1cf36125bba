"""The plan of a probed cohort: what jobs ask for grows with their slide; some are measured."""

from __future__ import annotations

import re
import sys

import pytest
from helpers_workflow import REPOSITORY, run_workflow

sys.path.insert(0, str(REPOSITORY / "tests" / "scale"))
from benchmark_cohort import dry_run, make_cohort

pytestmark = pytest.mark.workflow
SLIDES = 200
COHORT = ["--config", "slides=cohort.csv", "target=reference.png"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Return a folder with a probed cohort whose first slide is twice as wide as the others."""
    folder = tmp_path_factory.mktemp("cohort")
    make_cohort(folder, SLIDES, probed=True)
    index = folder / "results" / "slides" / "index.csv"
    index.write_text(index.read_text().replace("100000,80000", "200000,80000", 1))
    return folder


def asked_for(text: str, slide: str) -> dict[str, int]:
    """Return the resources that the plan prints for normalising a slide."""
    job = re.search(rf"wildcards: target=reference, slide={slide}\n\s+resources: (.*)", text)
    return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)(?=,|$)", job[1])}


def test_what_a_job_asks_for_grows_with_its_slide(cohort):
    text = run_workflow(cohort, "-n", *COHORT, "--", "normalize").text
    large, usual = asked_for(text, "slide-000000"), asked_for(text, "slide-000001")
    assert (large["runtime"], usual["runtime"]) == (60 + 10 * 16, 60 + 10 * 8)
    assert large["disk_mb"] > usual["disk_mb"] and large["mem_mb"] == usual["mem_mb"]
    assert usual["gpu"] == 0


def test_rendering_asks_for_a_gpu_and_more_time(cohort):
    options = [*COHORT, "normalize={mode: render}"]
    usual = asked_for(run_workflow(cohort, "-n", *options, "--", "normalize").text, "slide-000001")
    assert usual["gpu"] == 1 and usual["runtime"] == 60 + 60 * 8


def test_of_a_large_cohort_so_many_slides_are_measured(cohort):
    options = [*COHORT, "evaluate={max_slides: 9}"]
    text = run_workflow(cohort, "-n", "--quiet", "rules", *options, "--", "evaluate").text
    assert re.search(r"^sample_evaluation_tiles +9$", text, re.M)
    assert re.search(rf"^normalize_slide +{SLIDES}$", text, re.M)
    # Baselines train on these alone, and so no other slide needs tiles.
    assert re.search(r"^extract_tiles +9$", text, re.M)


def test_an_arm_asks_for_memory_for_the_slides_that_are_measured(cohort):
    options = [*COHORT, "evaluate={max_slides: 9}"]
    text = run_workflow(cohort, "-n", *options, "--", "evaluate").text
    job = re.search(r"rule apply_arm:(?:\n +.*)*wildcards: arm=operator\n +resources: (.*)", text)
    assert f"mem_mb={4000 + 10 * 9}," in job[1]


def test_a_plan_costs_little_per_slide(cohort):
    found = dry_run(cohort, "normalize")
    assert found.jobs >= 2 * SLIDES
    assert found.processor_s < 8 + 0.02 * SLIDES
    assert found.memory_mb < 400
