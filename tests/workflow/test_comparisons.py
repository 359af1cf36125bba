"""Baselines, ablation and studies as the workflow plans them; nothing is trained here."""

from __future__ import annotations

import yaml
from helpers_workflow import run_workflow

from stainfuser.ablation_plan import plan_instances


def planned(text: str, rule: str) -> int:
    """Return how many jobs of a rule a dry run counted."""
    lines = [line.split() for line in text.splitlines()]
    return next((int(line[1]) for line in lines if len(line) == 2 and line[0] == rule), 0)


def test_all_instances_studies_and_baselines_are_planned(repository, tmp_path):
    run = run_workflow(tmp_path, "ablation", "studies", "baselines", "--dry-run")
    assert run.status == 0, run.text[-2000:]
    section = yaml.safe_load((repository / "config.yaml").read_text())["ablation"]
    table = plan_instances(*(section[key] for key in ("centre", "axes", "crossed")))
    assert planned(run.text, "train_ablation") == len(table)
    assert planned(run.text, "train_baseline") == 3
    studies = ("study_latent_detail", "study_data_diversity", "study_scanner_variation")
    assert [planned(run.text, study) for study in studies] == [1, 1, 1]


def test_an_axis_that_does_not_exist_is_one_sentence(tmp_path):
    options = ["--config", "ablation={axes: {objective: [magic]}}"]
    run = run_workflow(tmp_path, "--dry-run", "ablation", *options)
    assert run.status != 0
    assert (
        "ablation.axes.objective: 'magic' is unknown; use bridge, v_zero_snr, epsilon." in run.text
    )
    assert "Traceback" not in run.text
