"""Check the configuration against its schema; say what is wrong in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stainfuser.errors import ConfigError
from stainfuser.privacy import without_paths

CONFIG_NAME = "configuration"
# Keys that ask for something and change no result.
ASKING = ("audit",)


def resolve_config(config: Mapping[str, Any], schema_path: str | Path) -> dict[str, Any]:
    """Return the configuration with command-line text turned into values, checked.

    Parameters
    ----------
    config
        What Snakemake merged from ``config.yaml`` and ``--config``. Nested values given on the
        command line arrive as text (``{steps: 10}`` → ``"10"``) and are converted where the schema
        wants a number, a boolean or null.
    schema_path
        The JSON schema as YAML.

    Raises
    ------
    ConfigError
        Unknown key (with the nearest known one), wrong type or value out of range.
    """
    import jsonschema

    schema = yaml.safe_load(Path(schema_path).read_text(encoding="utf-8"))
    resolved = _convert(dict(config), schema)
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(resolved), key=lambda error: list(map(str, error.path)))
    if errors:
        raise _as_config_error(errors[0])
    return resolved


def write_resolved(config: Mapping[str, Any], path: str | Path, full_path: str | Path) -> None:
    """Write the resolved configuration as YAML, leaving equal files untouched.

    Parameters
    ----------
    path
        The configuration that is kept with the results and may be passed on: of a path that is
        not relative only the name. Its modification time is the moment the configuration changed.
    full_path
        The configuration as it is, for programs of this machine.
    """
    config = {key: value for key, value in config.items() if key not in ASKING}
    texts = {Path(full_path): _as_yaml(config), Path(path): _as_yaml(without_paths(config))}
    if all(file.exists() and file.read_text(encoding="utf-8") == texts[file] for file in texts):
        return
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def _as_yaml(config: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


def _convert(value: Any, schema: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        known = schema.get("properties", {})
        return {key: _convert(item, known.get(key, {})) for key, item in value.items()}
    wanted = schema.get("type", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    if isinstance(value, str) and wanted and not _is_text(value, wanted):
        return yaml.safe_load(value)
    return value


def _is_text(value: str, wanted: list[str]) -> bool:
    """Tell whether a string is meant as one: the schema allows text and it is not spelled null."""
    if "string" not in wanted:
        return False
    return not ("null" in wanted and value in ("null", "~", ""))


def _as_config_error(error: Any) -> ConfigError:
    where = ".".join(map(str, error.absolute_path))
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = sorted(set(error.instance) - set(known))[0]
        key = f"{where}.{unknown}" if where else unknown
        near = difflib.get_close_matches(unknown, known, n=1)
        remedy = f"did you mean {near[0]}" if near else f"known keys are {', '.join(known)}"
        return ConfigError(f"{CONFIG_NAME} key {key}", "there is no such key", remedy)
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - set(error.instance))[0]
        key = f"{where}.{missing}" if where else missing
        return ConfigError(f"{CONFIG_NAME} key {key}", "it is missing", "take it from config.yaml")
    message = error.message
    if error.validator == "type":
        wanted = error.validator_value
        wanted = wanted if isinstance(wanted, str) else " or ".join(wanted)
        message = f"found {error.instance!r}, expected {wanted}"
    elif error.validator == "enum":
        message = f"found {error.instance!r}"
        choices = ", ".join("null" if v is None else str(v) for v in error.validator_value)
        return ConfigError(f"{CONFIG_NAME} key {where}", message, f"choose one of {choices}")
    return ConfigError(f"{CONFIG_NAME} key {where}", message, "see its comment in config.yaml")
