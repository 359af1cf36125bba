"""What made an artefact: code, configuration and inputs, without time, host or path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stainfuser.code_version import code_version, environment_sha256
from stainfuser.files import sha256_content
from stainfuser.privacy import without_paths

# What of a stamp names the code and its packages, not what was asked of them.
OF_THE_CODE = ("commit", "sources_sha256", "environment_sha256")


def make_stamp(rule: str, config: Mapping[str, Any], **inputs: str) -> dict[str, str]:
    """Return the flat text attributes every product carries.

    The same code, configuration and inputs give the same stamp, on every machine. Paths in the
    configuration are reduced to names.

    Parameters
    ----------
    rule
        Name of the rule (and script) that makes the product.
    config
        The resolved keyword parameters of the stage, JSON-able.
    inputs
        Name → SHA-256 of each input that matters, e.g. ``source_sha256=...``.
    """
    shared = without_paths(dict(config))
    return {
        "software": "stainfuser",
        **code_version(),
        "environment_sha256": environment_sha256(),
        "rule": rule,
        "config": json.dumps(shared, sort_keys=True),
        "config_sha256": sha256_content(shared),
        **({"seed": str(config["seed"])} if "seed" in config else {}),
        **inputs,
    }


def settings_of(stamp: Mapping[str, str]) -> dict[str, str]:
    """Return a stamp without its code: work that was begun goes on when the code is newer."""
    return {key: text for key, text in stamp.items() if key not in OF_THE_CODE}
