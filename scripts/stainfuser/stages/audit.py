"""Are a run's products what its records say, from every slide back to what was given?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stainfuser.code_version import CHECKOUT, code_version, environment_sha256
from stainfuser.errors import InputError, StainFuserError
from stainfuser.files import write_json, write_text
from stainfuser.logs import LOGGER
from stainfuser.provenance.audit_page import audit_page, verdict_sentence
from stainfuser.provenance.checks import Now
from stainfuser.provenance.examine import examine_artefact, examine_run
from stainfuser.provenance.judgement import Judgement
from stainfuser.provenance.ledger import read_ledger
from stainfuser.provenance.lineage import draw_lineage, lineage_nodes
from stainfuser.provenance.rehash import Places, Rehasher

MOST_LINES = 30


class NotIntactError(StainFuserError):
    """Something is not as it was made."""


def audit(
    *,
    artefact: str | None,
    run_dir: str | Path,
    records_dir: str | Path,
    given_paths: Iterable[str | Path],
    current_params: Mapping[str, Mapping[str, Any]],
    model_dir: str | Path | None,
    page_path: str | Path,
    details_path: str | Path,
    picture_path: str | Path,
    workers: int = 1,
) -> None:
    """Check a run, or one artefact, against the records; write what was found.

    Parameters
    ----------
    artefact
        One file or folder to be audited, wherever it lies; None audits the whole run.
    run_dir, records_dir
        Folder of the run, and the folder of its jobs' records.
    given_paths
        Files that the configuration names: slides, target images and the like.
    current_params
        Rule → parameters it would have now.
    model_dir
        Model that the configuration names; None if one is trained.
    page_path, details_path, picture_path
        Markdown, JSON and SVG to be written; the page is written last, and an interrupted audit
        leaves none.
    workers
        Files hashed at a time.

    Raises
    ------
    NotIntactError
        Something is not as it was made.
    InputError
        There are no records, or there is no such artefact.
    """
    for path in (page_path, details_path, picture_path):
        Path(path).unlink(missing_ok=True)
    run = Path(run_dir).resolve()
    ledger = read_ledger(Path(records_dir).resolve(), run)
    rehasher = Rehasher(Places(run, CHECKOUT, _by_name(given_paths)), workers)
    now = _now(current_params, model_dir)
    if artefact:
        path = _locate(artefact, run)
        subject = path.name
        judgement = examine_artefact(path, ledger, rehasher, now)
    else:
        subject = "the run"
        judgement = examine_run(ledger, rehasher, now)
    write_json(details_path, {"subject": subject, **judgement.to_json()})
    write_text(
        picture_path, draw_lineage(lineage_nodes(ledger, judgement), f"Lineage of {subject}")
    )
    write_text(page_path, audit_page(judgement, subject, Path(picture_path).name))
    _tell(judgement)
    if not judgement.is_intact:
        raise NotIntactError("audit", verdict_sentence(judgement).rstrip("."), f"see {page_path}")


def _now(current_params: Mapping[str, Mapping[str, Any]], model_dir: str | Path | None) -> Now:
    code = code_version()
    model = str(model_dir) if model_dir else None
    return Now(code["commit"], code["sources_sha256"], environment_sha256(), current_params, model)


def _by_name(paths: Iterable[str | Path]) -> dict[str, list[Path]]:
    known: dict[str, list[Path]] = {}
    for path in map(Path, paths):
        known.setdefault(path.name, []).append(path)
    return known


def _locate(artefact: str, run: Path) -> Path:
    """Return the artefact's path; relative ones lie in the run, or where the user is."""
    path = Path(artefact).expanduser()
    for base in (run, Path(os.environ.get("PWD", run))):
        if (base / path).exists():
            return base / path
    raise InputError(artefact, "there is no such file to audit", "check the path after audit=")


def _tell(judgement: Judgement) -> None:
    shown = sorted(judgement.findings, key=lambda one: not one.is_fault)
    for finding in shown[:MOST_LINES]:
        LOGGER.info("%s: %s", finding.kind, finding)
    if len(shown) > MOST_LINES:
        LOGGER.info("and %d more findings", len(shown) - MOST_LINES)
    LOGGER.info("%s", verdict_sentence(judgement))
