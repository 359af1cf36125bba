"""One record of the whole run: a Workflow Run RO-Crate, a page to read and a picture of descent."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stainfuser import __version__
from stainfuser.code_version import CHECKOUT, LOCK_FILES
from stainfuser.errors import InputError
from stainfuser.files import sha256_file, write_text
from stainfuser.logs import LOGGER
from stainfuser.provenance.crate_page import cost_of_recording, page_facts
from stainfuser.provenance.judgement import Judgement
from stainfuser.provenance.ledger import Ledger, read_ledger
from stainfuser.provenance.lineage import draw_lineage, lineage_nodes
from stainfuser.provenance.run_crate import CrateBuilder, RunFacts

NAME = "Slides normalised by StainFuser"
DESCRIPTION = (
    "Haematoxylin and eosin slides normalised to the stain of a reference image by StainFuser: "
    "every file that was read or made, its SHA-256, and the job that made it of what."
)


def record_provenance(
    *,
    records_dir: str | Path,
    run_dir: str | Path,
    crate_path: str | Path,
    page_path: str | Path,
    picture_path: str | Path,
    workflow_dir: str | Path,
    license: str,
) -> None:
    """Write the record of a run from the records of its jobs; no product is read.

    Parameters
    ----------
    records_dir, run_dir
        The records of the jobs, and the folder of the run that their paths are relative to.
    crate_path, page_path, picture_path
        The crate (JSON-LD), the page (HTML) and the picture of descent (SVG).
    workflow_dir
        Folder for the copies of the workflow's files and of the environment's lock.
    license
        Licence of the results: an address or words.

    Raises
    ------
    InputError
        There is no record, or a record was edited or names files outside the project.
    """
    run = Path(run_dir).resolve()
    ledger = read_ledger(Path(records_dir).resolve(), run)
    ledger = _without_own(ledger, Path(crate_path))
    if ledger.bad:
        bad = ledger.bad[0]
        remedy = "snakemake audit says more; delete the record's outputs and run again"
        raise InputError(bad.record, bad.reason, remedy)
    crate_dir = Path(crate_path).resolve().parent
    copied = _copy_workflow(Path(workflow_dir))
    files = [f"{Path(workflow_dir).name}/{name}" for name in copied]
    facts = RunFacts(NAME, DESCRIPTION, license, _version_of("snakemake"), files)
    crate = CrateBuilder(ledger, facts, crate_dir, run).build()
    judgement = Judgement([], [], 0, ledger.in_order())
    picture = draw_lineage(lineage_nodes(ledger, judgement), "From what was given to what was made")
    write_text(picture_path, picture)
    write_text(page_path, _page(ledger, picture, facts))
    write_text(crate_path, _as_lines(crate))
    LOGGER.info("%s", cost_of_recording(ledger))
    LOGGER.info("SHA-256 of the crate, to be noted elsewhere: %s", sha256_file(crate_path))


def _without_own(ledger: Ledger, crate_path: Path) -> Ledger:
    """Return the ledger without an earlier record of this very rule, which is about to change."""
    kept = Ledger(bad=ledger.bad)
    for job in ledger.jobs:
        if crate_path.name not in {Path(item.path).name for item in job.outputs}:
            kept.add(job)
    return kept


def _copy_workflow(folder: Path) -> list[str]:
    """Copy what an auditor needs to read; return the names, the Snakefile first."""
    shutil.rmtree(folder, ignore_errors=True)
    names = ["Snakefile", *LOCK_FILES]
    names += [
        path.relative_to(CHECKOUT).as_posix()
        for path in sorted((CHECKOUT / "workflow/rules").glob("*.smk"))
    ]
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, folder / name)
    return names


def _page(ledger: Ledger, picture: str, facts: RunFacts) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent.parent / "report"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("provenance.html.j2").render(
        version=__version__,
        picture=picture,
        picture_width_px=int(picture.split('width="', 1)[1].split('"', 1)[0]),
        license=facts.license,
        snakemake_version=facts.snakemake_version,
        **page_facts(ledger),
    )


def _as_lines(crate: dict[str, Any]) -> str:
    """Return the crate as JSON with a line per entity: a large cohort's is written fast."""
    context = json.dumps(crate["@context"], ensure_ascii=False)
    entities = ",\n".join(json.dumps(entity, ensure_ascii=False) for entity in crate["@graph"])
    return f'{{"@context": {context},\n"@graph": [\n{entities}\n]}}\n'


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
