"""A cohort's hours from measured costs: the jobs of the workflow, and what must be measured."""

from __future__ import annotations

import csv

import pytest

from stainfuser.cluster_model import Cluster, simulate
from stainfuser.errors import InputError
from stainfuser.stages.simulate_cohort import (
    SlideCosts,
    cohort_jobs,
    measure_costs,
    simulate_cohort,
)

SPEEDS = "arm,slide,mpix_per_s\ncopy,large,100\noperator,large,50\ncopy,small,8\nrender,small,0.5\n"
OPTIONS = dict(
    cohorts=[1, 3],
    slide_gigapixels=1.0,
    tissue_fraction=0.5,
    slide_gigabytes=2.0,
    nodes=1,
    cores_per_node=1,
    gpus_per_node=0,
    storage_gigabytes_per_s=100.0,
    job_start_s=10.0,
    slides_per_job=2,
    render_gpu_speedup=None,
    price_core_hour=3.6,
    price_gpu_hour=1.0,
)
SIZES = ("slide_gigapixels", "tissue_fraction", "slide_gigabytes", "render_gpu_speedup")


@pytest.fixture
def measured(tmp_path):
    """Write what a run of three slides and the benchmark of speed leave."""
    (tmp_path / "slides.csv").write_text(SPEEDS)
    for rule, seconds in (("probe_slide", (1, 2, 9)), ("mask_tissue", (3, 3, 4))):
        (tmp_path / rule).mkdir()
        for number, value in enumerate(seconds):
            (tmp_path / rule / f"{number}.tsv").write_text(f"s\tcpu_time\n{value}\t1\n")
    return tmp_path


def run_stage(folder, **changes):
    names = {"table": "cohort.csv", "text": "cohort.md", "figure": "cohort.png"}
    paths = {f"{key}_path": folder / name for key, name in names.items()}
    simulate_cohort(
        speed_path=folder / "slides.csv", benchmarks_dir=folder, **paths, **{**OPTIONS, **changes}
    )
    with open(folder / "cohort.csv", encoding="utf-8") as table:
        return {(row["mode"], int(row["slides"])): row for row in csv.DictReader(table)}


def test_costs_are_medians_and_speeds_times_sizes(measured):
    sizes = {key: OPTIONS[key] for key in SIZES}
    costs = measure_costs(measured / "slides.csv", measured, **sizes)
    # 2 GB are hashed at 1 GB/s; 1000 MPix at 50/s; all copied at 100/s and half rendered at 0.5/s.
    assert costs.rules == {"probe_slide": 4.0, "mask_tissue": 3.0}
    assert costs.normalize == pytest.approx({"operator": 20.0, "render": 1010.0})
    faster = measure_costs(measured / "slides.csv", measured, **{**sizes, "render_gpu_speedup": 10})
    assert faster.normalize["render"] == pytest.approx(110.0) and faster.render_on_gpu


def test_a_cohort_is_the_jobs_the_workflow_makes():
    costs = SlideCosts({"probe_slide": 4.0, "mask_tissue": 3.0}, {"render": 100.0}, True)
    jobs = cohort_jobs(costs, "render", 3, 2.0, OPTIONS["slides_per_job"])
    assert [job.seconds for job in jobs] == [8, 4, 0, 103, 103, 103]
    assert [job.after for job in jobs] == [(), (), (0, 1), (2,), (2,), (2,)]
    assert [job.gpus for job in jobs] == [0, 0, 0, 1, 1, 1]
    # Two cores, one GPU: probes side by side 8, three slides one after the other.
    assert simulate(jobs, Cluster(1, 2, 1, 1e9)).seconds == pytest.approx(8 + 309)


def test_hours_and_cost_of_one_core_are_the_sum_of_its_jobs(measured):
    rows = run_stage(measured)
    # One slide: two jobs of 10 s start; 4 + 3 + 20 s of work.
    assert float(rows["operator", 1]["hours"]) == pytest.approx(47 / 3600)
    # Three: 2 + 3 jobs; 12 + 9 + 60 s of work.
    assert float(rows["operator", 3]["hours"]) == pytest.approx((50 + 81) / 3600)
    assert float(rows["operator", 3]["cost"]) == pytest.approx(131 / 3600 * 3.6)
    assert float(rows["render", 1]["hours"]) == pytest.approx((20 + 7 + 1010) / 3600)
    text = (measured / "cohort.md").read_text()
    assert "| operator | 3 |" in text and "A slide has 1.0 gigapixels, 50% of them tissue" in text
    assert (measured / "cohort.png").stat().st_size > 10_000


def test_what_was_not_measured_is_one_sentence(measured):
    for path in (measured / "mask_tissue").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no job of mask_tissue was measured"):
        run_stage(measured)
    (measured / "slides.csv").write_text("arm,slide,mpix_per_s\ncopy,large,100\n")
    (measured / "mask_tissue" / "0.tsv").write_text("s\n1\n")
    with pytest.raises(InputError, match="no speed of operator"):
        run_stage(measured)
