"""End the run with the plain list of slides that were left out."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from stainfuser.errors import InputError
from stainfuser.failures import left_out
from stainfuser.files import write_text

LOGGER = logging.getLogger("stainfuser")


def accept_slides(
    *,
    index_path: Path | str,
    config_path: Path | str,
    failed_dir: Path | str,
    accepted_path: Path | str,
    allow_failed_slides: bool,
) -> None:
    """Write the list of left-out slides, or raise it.

    Parameters
    ----------
    index_path
        ``slides/index.csv``: slide, verdict, reason, remedy.
    config_path
        ``config.yaml`` of the run; failures older than it are out of date.
    failed_dir
        Records of slides that failed after the probe.
    accepted_path
        Text file, one line per left-out slide (empty when there is none).
    allow_failed_slides
        Whether left-out slides are accepted.

    Raises
    ------
    InputError
        Slides were left out and `allow_failed_slides` is false.
    """
    failures = left_out(index_path, failed_dir, os.path.getmtime(config_path))
    for failure in failures:
        LOGGER.warning("left out: %s", failure)
    if failures and not allow_failed_slides:
        found = f"left out: {', '.join(failure.slide for failure in failures)}"
        remedy = "mend or remove them, or set allow_failed_slides=true"
        raise InputError(f"{len(failures)} slide(s)", found, remedy)
    write_text(accepted_path, "".join(f"{failure}\n" for failure in failures))
