"""What made an artefact: version, configuration and inputs, without time, host or path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from stainfuser import __version__
from stainfuser.files import sha256_content


def make_stamp(rule: str, config: Mapping[str, Any], **inputs: str) -> dict[str, str]:
    """Return the flat text attributes every product carries.

    Parameters
    ----------
    rule
        Name of the rule (and script) that makes the product.
    config
        The resolved keyword parameters of the stage, JSON-able.
    inputs
        Name → SHA-256 of each input that matters, e.g. ``source_sha256=...``.
    """
    return {
        "software": "stainfuser",
        "version": __version__,
        "rule": rule,
        "config": json.dumps(dict(config), sort_keys=True, default=str),
        "config_sha256": sha256_content(dict(config)),
        **inputs,
    }
