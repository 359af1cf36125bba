"""The audit itself: a whole run, or one artefact wherever it lies now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stainfuser.errors import InputError
from stainfuser.provenance import checks
from stainfuser.provenance.checks import Now
from stainfuser.provenance.findings import Finding
from stainfuser.provenance.judgement import Judgement, judge_slides
from stainfuser.provenance.ledger import Item, Job, Ledger
from stainfuser.provenance.rehash import Rehasher

CRATE = "results/provenance/ro-crate-metadata.json"


def examine_run(ledger: Ledger, rehasher: Rehasher, now: Now) -> Judgement:
    """Check every record, product and input of a run."""
    jobs = ledger.in_order()
    findings = list(_findings(ledger, jobs, rehasher, now))
    explained = {name for one in findings for name in _renamed_to(one)}
    findings += checks.check_strays(ledger, rehasher, explained)
    findings += checks.check_crate(rehasher.places.run / CRATE, ledger, rehasher.places.run)
    return _judge(ledger, jobs, findings)


def examine_artefact(path: Path, ledger: Ledger, rehasher: Rehasher, now: Now) -> Judgement:
    """Find by its hash what one file is, wherever it lies, and check all it descends from.

    Raises
    ------
    InputError
        There is no such file.
    """
    found = rehasher.path_hash(path) if path.exists() else None
    if found is None:
        raise InputError(path.name, "there is no such file to audit", "check the path of audit=")
    makers = [
        (job, item)
        for job in ledger.in_order()
        for item in job.outputs
        if found.sha256 in (item.sha256, *(item.files or {}).values())
    ]
    if not makers:
        return Judgement([_stranger(path, ledger)], [], 1)
    job, item = makers[-1]
    jobs = ledger.ancestry(job)
    inside = {one.record for one in jobs}
    findings = [
        finding
        for finding in _findings(ledger, jobs, rehasher, now)
        if not (finding.kind in ("missing", "renamed") and finding.subject == item.path)
        and (finding.kind != "edited record" or finding.subject in inside)
    ]
    findings.insert(0, _identified(path, job, item, rehasher))
    return _judge(ledger, jobs, findings)


def _findings(ledger: Ledger, jobs: list[Job], rehasher: Rehasher, now: Now) -> Iterator[Finding]:
    rehasher.read(item.where for job in jobs for item in [*job.inputs, *job.outputs])
    yield from checks.check_records(ledger)
    yield from checks.check_outputs(ledger, jobs, rehasher)
    yield from checks.check_inputs(ledger, jobs, rehasher)
    yield from checks.check_code(jobs, now)
    yield from checks.check_configuration(jobs, now)
    yield from checks.check_clocks(ledger, jobs, rehasher, now)


def _judge(ledger: Ledger, jobs: list[Job], findings: list[Finding]) -> Judgement:
    checked = len({item.where for job in jobs for item in [*job.inputs, *job.outputs]})
    return Judgement(findings, judge_slides(ledger, jobs, findings), checked, jobs)


def _identified(path: Path, job: Job, item: Item, rehasher: Rehasher) -> Finding:
    where = rehasher.places.run / item.path
    words = ", ".join(job.wildcards.values())
    sentence = f"it is {item.path}, made by {job.rule}{f' ({words})' if words else ''}"
    if not where.exists() or path.resolve() != where.resolve():
        sentence += "; it has left its place, its bytes are intact"
    return Finding("remark", path.name, sentence)


def _stranger(path: Path, ledger: Ledger) -> Finding:
    namesakes = [job for job in ledger.jobs for item in job.outputs if _name(item) == path.name]
    if namesakes:
        job = namesakes[0]
        sentence = f"its bytes are not those that {job.rule} wrote under this name: it was altered"
        return Finding("altered", path.name, sentence, (job.record,))
    return Finding("no record", path.name, "no job of this run made a file with these bytes")


def _name(item: Item) -> str:
    return Path(item.path).name


def _renamed_to(finding: Finding) -> list[str]:
    if finding.kind != "renamed":
        return []
    return [finding.sentence.removeprefix("it is called ").split(" now; ", 1)[0]]
