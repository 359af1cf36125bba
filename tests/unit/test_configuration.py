"""The configuration check says which key is wrong, and converts what the command line gives."""

from __future__ import annotations

import pytest
import yaml

from stainfuser.configuration import resolve_config, write_resolved
from stainfuser.errors import ConfigError

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "slides": {"type": "string"},
        "mpp": {"type": ["number", "null"], "exclusiveMinimum": 0},
        "train": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "steps": {"type": "integer"},
                "objective": {"enum": ["bridge", "epsilon"]},
            },
        },
    },
    "required": ["slides"],
}


@pytest.fixture
def schema_path(tmp_path):
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(SCHEMA))
    return path


def test_command_line_text_becomes_values(schema_path):
    given = {"slides": "7", "mpp": "null", "train": {"steps": "10"}}
    expected = {"slides": "7", "mpp": None, "train": {"steps": 10}}
    assert resolve_config(given, schema_path) == expected


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (
            {"slides": "a", "train": {"stepz": 1}},
            "train.stepz: there is no such key; did you mean steps",
        ),
        (
            {"slides": "a", "train": {"steps": "many"}},
            "train.steps: found 'many', expected integer",
        ),
        (
            {"slides": "a", "train": {"objective": "magic"}},
            "train.objective: found 'magic'; choose one",
        ),
        ({"slides": "a", "mpp": -1}, "mpp: -1 is less than or equal to the minimum of 0"),
        ({}, "slides: it is missing"),
    ],
)
def test_one_sentence_names_the_key(schema_path, config, sentence):
    with pytest.raises(ConfigError, match=sentence) as caught:
        resolve_config(config, schema_path)
    assert "\n" not in str(caught.value)


def test_an_equal_configuration_keeps_its_time(tmp_path):
    path, full = tmp_path / "results" / "config.yaml", tmp_path / "full.yaml"
    write_resolved({"seed": 1}, path, full)
    before = path.stat().st_mtime_ns
    write_resolved({"seed": 1, "audit": "a.svs"}, path, full)
    assert path.stat().st_mtime_ns == before
    write_resolved({"seed": 2}, path, full)
    assert yaml.safe_load(path.read_text()) == {"seed": 2}


def test_a_configuration_that_is_passed_on_names_no_folder_of_the_machine(tmp_path):
    path, full = tmp_path / "results" / "config.yaml", tmp_path / "full.yaml"
    config = {"slides": "/data/smith/*.svs", "target": {"a": "~/b.png"}, "model": "models/mine"}
    write_resolved(config, path, full)
    shared = {"slides": "*.svs", "target": {"a": "b.png"}, "model": "models/mine"}
    assert yaml.safe_load(path.read_text()) == shared
    assert yaml.safe_load(full.read_text()) == config
    before = path.stat().st_mtime_ns
    write_resolved({**config, "slides": "/data/jones/*.svs"}, path, full)
    assert path.stat().st_mtime_ns > before


def test_what_the_demo_adds_fits_the_configuration(repository):
    """Snakemake merges a configuration file section by section, as is done here."""
    whole, demo = (
        yaml.safe_load((repository / name).read_text())
        for name in ("config.yaml", "workflow/demo.yaml")
    )
    merged = {**whole, **{key: {**whole[key], **part} for key, part in demo.items()}}
    resolved = resolve_config(merged, repository / "workflow/schemas/config.schema.yaml")
    assert resolved["train"]["initial_model"] == "compact" == whole["model"]
    assert resolved["train"]["finetune_steps"] > 0
