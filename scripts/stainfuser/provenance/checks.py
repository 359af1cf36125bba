"""The checks of an audit, each from the ledger and what lies there now to findings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from stainfuser.files import sha256_file
from stainfuser.privacy import without_paths
from stainfuser.provenance.findings import Finding
from stainfuser.provenance.ledger import Item, Job, Ledger, is_inside
from stainfuser.provenance.rehash import Rehasher, altered_files, find_by_hash, product_files
from stainfuser.recording import place_of

# Clocks of two machines may differ by this much without a word.
CLOCK_TOLERANCE = timedelta(minutes=2)
CONFIG_FILE = "results/config.yaml"


@dataclass
class Now:
    """What is checked out and configured at the time of the audit.

    Attributes
    ----------
    commit, sources_sha256, lock_sha256
        The code and the lock of the environment.
    params
        Rule → its parameters that hold for every job.
    model
        Path of the model that the configuration names; None if one is trained.
    time
        Now.
    """

    commit: str
    sources_sha256: str
    lock_sha256: str
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    model: str | None = None
    time: datetime = field(default_factory=lambda: datetime.now(UTC))


def check_records(ledger: Ledger) -> Iterator[Finding]:
    """Records that were edited, cannot be read, or name files outside the project."""
    words = {"edited": "edited record", "refused": "refused record"}
    for bad in ledger.bad:
        kind = words.get(bad.kind, "unreadable record")
        sentence = f"{bad.reason}; nothing vouches for what it describes"
        yield Finding(kind, bad.record, sentence, (bad.record,))


def check_outputs(ledger: Ledger, jobs: Iterable[Job], rehasher: Rehasher) -> Iterator[Finding]:
    """Products that are missing, altered, renamed."""
    strays: list[Path] | None = None
    for job in jobs:
        for item in job.outputs if job.is_believed else ():
            if ledger.makers.get(item.where) is not job or rehasher.matches(item):
                continue
            found = rehasher.at(item.where)
            if found:
                yield _altered(item, job, found[0])
                continue
            if strays is None:
                strays = unrecorded_files(ledger, rehasher)
            yield _missing(item, job, rehasher, strays)


def unrecorded_files(ledger: Ledger, rehasher: Rehasher) -> list[Path]:
    """Return the files among the products that no record names."""
    run = rehasher.places.run
    folders = [run / where[1] for where in ledger.makers if (run / where[1]).is_dir()]
    known = {run / where[1] for where in ledger.makers if where[0] == "run"}
    paths = product_files(run / "results")
    return [
        path
        for path in paths
        if path not in known and not any(path.is_relative_to(folder) for folder in folders)
    ]


def check_strays(ledger: Ledger, rehasher: Rehasher, explained: set[str]) -> Iterator[Finding]:
    """Files among the products that nothing says the origin of."""
    unread = {bad.record for bad in ledger.bad}
    for path in unrecorded_files(ledger, rehasher):
        name = path.relative_to(rehasher.places.run).as_posix()
        if name not in explained:
            hint = " (some records could not be used, see above)" if unread else ""
            yield Finding("no record", name, f"no record says what made it{hint}")


def check_inputs(ledger: Ledger, jobs: Iterable[Job], rehasher: Rehasher) -> Iterator[Finding]:
    """What jobs read, against what its makers wrote, or against what the user has now."""
    given: dict[tuple[Any, str], list[Job]] = defaultdict(list)
    items: dict[tuple[Any, str], Item] = {}
    for job in jobs:
        for item in job.inputs if job.is_believed else ():
            maker = ledger.makers.get(item.where)
            if maker is None:
                given[item.where, item.sha256].append(job)
                items[item.where, item.sha256] = item
            elif maker.is_believed:
                yield from _stage_findings(item, job, maker, ledger)
    for key, readers in given.items():
        yield from _given_findings(items[key], readers, rehasher)


def check_code(jobs: Iterable[Job], now: Now) -> Iterator[Finding]:
    """Jobs that ran with other code, or in another environment, than is checked out."""
    code: dict[str, list[Job]] = defaultdict(list)
    locks: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.sources_sha256 != now.sources_sha256:
            code[job.content["software"].get("commit", "unknown")].append(job)
        lock = job.content.get("environment", {}).get("lock_sha256", "unknown")
        if lock != now.lock_sha256:
            locks[lock].append(job)
    for commit, found in sorted(code.items()):
        versions = f"commit {_short(commit)} then, {_short(now.commit)} now"
        if commit == now.commit:
            versions = f"commit {_short(commit)}, edited since"
        sentence = f"{_rules(found)} ran with other code than is checked out now ({versions})"
        yield Finding("other code", "code", sentence, _records(found))
    for lock, found in sorted(locks.items()):
        sentence = f"{_rules(found)} ran with packages pinned otherwise (lock {_short(lock)})"
        yield Finding("other environment", "packages", sentence, _records(found))


def check_configuration(jobs: Iterable[Job], now: Now) -> Iterator[Finding]:
    """Jobs whose settings differ from the present configuration."""
    changes: dict[tuple[str, str], list[Job]] = defaultdict(list)
    for job in jobs:
        for sentence in _setting_changes(job, now):
            changes[job.rule, sentence].append(job)
    for (rule, sentence), found in sorted(changes.items()):
        text = f"{_count(found)} ran with another configuration: {sentence}"
        yield Finding("other configuration", rule, text, _records(found))


def check_clocks(
    ledger: Ledger, jobs: Iterable[Job], rehasher: Rehasher, now: Now
) -> Iterator[Finding]:
    """Times that cannot be: an end before its start, or anything in the future."""
    for job in jobs:
        started, ended = _time(job.started), _time(job.ended)
        if started is None or ended is None:
            yield Finding("clock", job.record, "its times cannot be read")
        elif ended < started:
            yield Finding(
                "clock", job.record, f"it ends ({job.ended}) before it starts ({job.started})"
            )
        elif ended > now.time + CLOCK_TOLERANCE:
            yield Finding("clock", job.record, f"it ends in the future ({job.ended})")
        for item in job.outputs:
            for path in rehasher.places.candidates(item.where):
                changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                if changed > now.time + CLOCK_TOLERANCE:
                    sentence = (
                        f"it was last changed in the future ({changed:%Y-%m-%dT%H:%M:%S}+00:00)"
                    )
                    yield Finding("clock", item.path, sentence)


def check_crate(path: Path, ledger: Ledger, run: Path) -> Iterator[Finding]:
    """Records against their hashes in the crate; the crate's own hash is that of a product."""
    if not path.exists():
        return
    name = path.relative_to(run).as_posix()
    try:
        graph = json.loads(path.read_text(encoding="utf-8"))["@graph"]
        told = {entity["@id"]: entity for entity in graph if "sha256" in entity}
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Finding("altered crate", name, f"it cannot be read ({type(error).__name__})", ())
        return
    maker = ledger.makers.get(("run", name))
    jobs = {job.record: job for job in ledger.jobs}
    for identifier, entity in told.items():
        if identifier.startswith("jobs/"):
            record = f"{path.parent.relative_to(run).as_posix()}/{unquote(identifier)}"
            yield from _record_findings(record, entity["sha256"], jobs.get(record), run, maker)


def _record_findings(
    record: str, sha256: str, job: Job | None, run: Path, crate_maker: Job | None
) -> Iterator[Finding]:
    if not is_inside(record) or not (run / record).is_file():
        yield Finding("missing", record, "the crate names this record, and it is not there")
    elif sha256_file(run / record) != sha256:
        if job and job.is_believed and crate_maker and job.ended > crate_maker.started:
            return  # that job has run again since the crate was written
        sentence = "it is not the record that the crate was written from"
        yield Finding("edited record", record, sentence, (record,))


def _altered(item: Item, job: Job, found: Any) -> Finding:
    details = altered_files(item, found)
    if details:
        said = "; ".join(details[:5]) + (
            f"; and {len(details) - 5} more" if len(details) > 5 else ""
        )
        sentence = f"it is not as {job.rule} wrote it: {said}"
    else:
        size = f", {found.size} bytes in place of {item.size}" if found.size != item.size else ""
        sentence = f"its bytes are not those that {job.rule} wrote{size}"
    return Finding("altered", item.path, sentence, (job.record,))


def _missing(item: Item, job: Job, rehasher: Rehasher, strays: list[Path]) -> Finding:
    moved = None
    if item.files is None:
        moved = find_by_hash(strays, item.size, item.sha256, rehasher.path_hash)
    if moved is not None:
        name = moved.relative_to(rehasher.places.run).as_posix()
        sentence = f"it is called {name} now; its bytes are as {job.rule} wrote them"
        return Finding("renamed", item.path, sentence, (job.record,))
    return Finding("missing", item.path, f"{job.rule} wrote it, and it is not there", (job.record,))


def _stage_findings(item: Item, job: Job, maker: Job, ledger: Ledger) -> Iterator[Finding]:
    written = ledger.output(item.where)
    if written is None or written.sha256 == item.sha256:
        return
    if maker.ended > job.started:
        sentence = f"{maker.rule} made it again after {_name(job)} had read it"
    else:
        sentence = f"{_name(job)} read other bytes than {maker.rule} had written"
    yield Finding("changed between stages", item.path, sentence, (job.record,))


def _given_findings(item: Item, readers: list[Job], rehasher: Rehasher) -> Iterator[Finding]:
    if item.path.startswith("results/") and item.path != CONFIG_FILE and item.where[0] == "run":
        sentence = f"{_name(readers[0])} read it, and no record says what made it"
        yield Finding("no record", item.path, sentence, _records(readers))
    elif not rehasher.matches(item):
        found = rehasher.at(item.where)
        if not found:
            sentence = (
                f"{_name(readers[0])} read it, and it is not where the configuration looks now"
            )
            yield Finding("missing input", item.path, sentence, _records(readers))
            return
        details = "; ".join(altered_files(item, found[0])[:5])
        said = f": {details}" if details else ""
        sentence = f"it has changed since {_name(readers[0])} read it{said}"
        yield Finding("changed input", item.path, sentence, _records(readers))


def _setting_changes(job: Job, now: Now) -> Iterator[str]:
    current = now.params.get(job.rule, {})
    for name, then in job.content["params"].items():
        if name in current and not _has_wildcards(current[name]):
            yield from _differences(name, then, without_paths(current[name]))
    for item in job.inputs:
        if item.name == "model" and now.model is not None:
            where = place_of(now.model)
            if (where["place"], where["path"]) != item.where:
                yield f"the model was {item.path}, it is {where['path']} now"


def _differences(name: str, then: Any, now: Any) -> Iterator[str]:
    if isinstance(then, dict) and isinstance(now, dict):
        for key in sorted(then.keys() | now.keys()):
            yield from _differences(f"{name}.{key}", then.get(key), now.get(key))
    elif then != now:
        yield f"{name.removeprefix('options.')} was {json.dumps(then)}, it is {json.dumps(now)} now"


def _has_wildcards(value: Any) -> bool:
    return isinstance(value, str) and "{" in value


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _name(job: Job) -> str:
    words = ", ".join(job.wildcards.values())
    return f"{job.rule} ({words})" if words else job.rule


def _count(jobs: list[Job]) -> str:
    return f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}"


def _rules(jobs: list[Job]) -> str:
    return f"{_count(jobs)} ({', '.join(sorted({job.rule for job in jobs}))})"


def _records(jobs: Iterable[Job]) -> tuple[str, ...]:
    return tuple(job.record for job in jobs)


def _short(text: str) -> str:
    commit, _, dirty = text.partition("-")
    return commit[:12] + (f"-{dirty}" if dirty else "")
