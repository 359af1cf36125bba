"""The parameter space of the ablation: which instances there are, and as Snakemake sees them."""

from __future__ import annotations

import pandas as pd
import pytest
import yaml
from snakemake.utils import Paramspace

from stainfuser.ablation_plan import AXES, ParameterTable, plain_instance, plan_instances
from stainfuser.errors import ConfigError

CENTRE = {
    "training_px": 64,
    "run_px": 64,
    "magnification": "mixed",
    "targets": 12,
    "training_steps": 200,
    "sampling_steps": 0,
    "objective": "bridge",
    "context_tokens": 64,
    "pair_method": "truth",
    "autoencoder": "finetuned",
}


def test_one_axis_at_a_time_and_crossed_axes_in_all_combinations():
    axes = {"training_px": [64, 128], "run_px": [64, 128], "objective": ["bridge", "epsilon"]}
    table = plan_instances(CENTRE, axes, [["training_px", "run_px"]])
    changed = [{k: v for k, v in row.items() if v != CENTRE[k]} for row in table.rows]
    assert changed[0] == {}
    assert {frozenset(change.items()) for change in changed[1:]} == {
        frozenset({("training_px", 128)}),
        frozenset({("run_px", 128)}),
        frozenset({("objective", "epsilon")}),
        frozenset({("training_px", 128), ("run_px", 128)}),
    }
    assert len(table) == 5


def test_an_axis_without_values_is_left_out():
    assert len(plan_instances(CENTRE, {"targets": None, "run_px": [64, 32]}, [])) == 2


def test_snakemake_sees_the_table_as_it_sees_a_data_frame():
    axes = {"objective": ["bridge", "v_zero_snr"], "targets": [4, 12]}
    table = plan_instances(CENTRE, axes, [["objective", "targets"]])
    ours = Paramspace(table, filename_params="*", filename_sep=",")
    theirs = Paramspace(pd.DataFrame(table.rows), filename_params="*", filename_sep=",")
    assert ours.wildcard_pattern == theirs.wildcard_pattern
    assert list(ours.instance_patterns) == list(theirs.instance_patterns)
    wildcards = {name: str(value) for name, value in table.rows[2].items()}
    assert plain_instance(ours.instance(wildcards)) == table.rows[2]
    assert plain_instance(theirs.instance(wildcards)) == table.rows[2]


def test_every_instance_of_the_shipped_configuration_comes_back_from_its_file_name(repository):
    section = yaml.safe_load((repository / "config.yaml").read_text())["ablation"]
    table = plan_instances(*(section[key] for key in ("centre", "axes", "crossed")))
    space = Paramspace(table, filename_params="*", filename_sep=",")
    names = list(space.instance_patterns)
    assert len(names) == len(set(names)) == len(table)
    assert max(map(len, names)) < 230, "file names have at most 255 bytes"
    back = [
        plain_instance(space.instance(dict(part.split("~") for part in name.split(","))))
        for name in names
    ]
    assert back == table.rows


def test_a_table_keeps_to_the_columns_asked_for():
    table = ParameterTable(list(AXES), [CENTRE])[["objective", "targets"]]
    assert table.columns == ["objective", "targets"]
    assert next(table.itertuples())._asdict() == {"objective": "bridge", "targets": 12}


@pytest.mark.parametrize(
    ("centre", "axes", "crossed", "said"),
    [
        ({"targets": 3}, {}, [], "every axis"),
        ({}, {"colour": [1]}, [], "no axis 'colour'"),
        ({}, {"objective": ["magic"]}, [], "'magic' is unknown"),
        ({}, {"targets": [0]}, [], "at least 1"),
        ({}, {"targets": [True]}, [], "whole number"),
        ({}, {"targets": ["4"]}, [], "whole number"),
        ({}, {"targets": [4]}, [["targets", "run_px"]], "not one of"),
    ],
)
def test_what_cannot_be_is_named(centre, axes, crossed, said):
    start = {**CENTRE, **centre} if "targets" not in centre else centre
    with pytest.raises(ConfigError, match=said):
        plan_instances(start, axes, crossed)
