"""All records of a run, read and checked: which job made which file of what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from stainfuser.errors import InputError
from stainfuser.files import read_json
from stainfuser.recording import RECORD_FORMAT, is_intact

Where = tuple[str, str]
"""Place and path of a file, as `stainfuser.recording.place_of` returns them."""

_KEYS = {
    "rule": str,
    "wildcards": dict,
    "params": dict,
    "inputs": list,
    "outputs": list,
    "software": dict,
    "started": str,
    "ended": str,
}
PLACES = ("run", "checkout", "elsewhere")


@dataclass(frozen=True)
class Item:
    """One file or folder that a job read or wrote.

    Attributes
    ----------
    name
        Its name in the rule.
    where
        Place and path.
    sha256, size
        Hash and bytes as recorded.
    files
        Manifest of a folder (name → SHA-256); None for a file.
    """

    name: str
    where: Where
    sha256: str
    size: int
    files: dict[str, str] | None = None

    @property
    def path(self) -> str:
        """Path relative to its place."""
        return self.where[1]


@dataclass(frozen=True, eq=False)
class Job:
    """One recorded job."""

    record: str
    rule: str
    wildcards: dict[str, str]
    inputs: list[Item]
    outputs: list[Item]
    content: dict[str, Any]
    is_believed: bool = True

    @property
    def started(self) -> str:
        """Start, ISO 8601 UTC."""
        return self.content["started"]

    @property
    def ended(self) -> str:
        """End, ISO 8601 UTC."""
        return self.content["ended"]

    @property
    def sources_sha256(self) -> str:
        """Hash of the package that ran."""
        return self.content["software"].get("sources_sha256", "unknown")


@dataclass(frozen=True)
class BadRecord:
    """A record that is not used, and why: ``edited``, ``refused`` or ``unreadable``."""

    record: str
    kind: str
    reason: str


@dataclass
class Ledger:
    """Every job of a run.

    Attributes
    ----------
    jobs
        Jobs in the order of their records' paths.
    bad
        Records that cannot be believed.
    makers
        Where → the job whose output it is; the last one where several say so.
    """

    jobs: list[Job] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    makers: dict[Where, Job] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        """Add a job."""
        self.jobs.append(job)
        for item in job.outputs:
            earlier = self.makers.get(item.where)
            if earlier is None or earlier.ended <= job.ended:
                self.makers[item.where] = job

    def output(self, where: Where) -> Item | None:
        """Return the recorded output at a place."""
        job = self.makers.get(where)
        return next((item for item in job.outputs if item.where == where), None) if job else None

    def parents(self, job: Job) -> list[Job]:
        """Return the jobs that made a job's inputs, each once."""
        found = {id(maker): maker for item in job.inputs if (maker := self.makers.get(item.where))}
        return list(found.values())

    def given(self, jobs: list[Job]) -> list[Item]:
        """Return what jobs read that no job made, each once."""
        read = [item for job in jobs for item in job.inputs if item.where not in self.makers]
        return list({(item.where, item.sha256): item for item in read}.values())

    def ancestry(self, job: Job) -> list[Job]:
        """Return a job and everything it descends from, parents before children."""
        return self._walk([job])

    def in_order(self) -> list[Job]:
        """Return all jobs, parents before children."""
        return self._walk(self.jobs)

    def _walk(self, jobs: list[Job]) -> list[Job]:
        done: dict[int, Job] = {}
        entered: set[int] = set()
        stack = [(job, False) for job in reversed(jobs)]
        while stack:
            job, are_parents_done = stack.pop()
            if are_parents_done:
                done.setdefault(id(job), job)
            elif id(job) not in entered:
                entered.add(id(job))
                stack += [(job, True), *((parent, False) for parent in self.parents(job))]
        return list(done.values())


def read_ledger(folder: Path, root: Path) -> Ledger:
    """Read every record below `folder`; paths of records are told relative to `root`.

    Raises
    ------
    InputError
        There is no record at all.
    """
    ledger = Ledger()
    paths = sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))
    if not paths:
        wrong = "holds no record of a job"
        raise InputError(folder.name, wrong, "run the workflow in this folder first")
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            job = read_job(path, name)
        except _BadRecordError as error:
            ledger.bad.append(BadRecord(name, error.kind, str(error)))
            continue
        ledger.add(job)
        if not job.is_believed:
            reason = "its content does not fit the checksum that was written with it"
            ledger.bad.append(BadRecord(name, "edited", reason))
    return ledger


def read_job(path: Path, name: str) -> Job:
    """Read one record; check its form, its checksum and where its files are said to lie.

    A job whose checksum does not fit is returned, but not believed.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise _BadRecordError("unreadable", f"it cannot be read as JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != RECORD_FORMAT:
        raise _BadRecordError("unreadable", "it is no record of a job")
    if not all(isinstance(content.get(key), kind) for key, kind in _KEYS.items()):
        raise _BadRecordError("unreadable", "entries of it are missing or of another type")
    inputs, outputs = (list(_items(content[side])) for side in ("inputs", "outputs"))
    rule, wildcards = content["rule"], content["wildcards"]
    return Job(name, rule, wildcards, inputs, outputs, content, is_intact(content))


class _BadRecordError(Exception):
    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


def _items(entries: list[Any]) -> Iterator[Item]:
    for entry in entries:
        try:
            where = (entry["place"], entry["path"])
            files = entry.get("files")
            item = Item(entry["name"], where, entry["sha256"], int(entry["bytes"]), files)
        except (TypeError, KeyError, AttributeError, ValueError):
            raise _BadRecordError("unreadable", "a file's entry is not whole") from None
        for path in (item.path, *(files or ())):
            if where[0] not in PLACES or not is_inside(path):
                reason = "it names a file outside the project, which was not opened"
                raise _BadRecordError("refused", reason)
        yield item


def is_inside(path: Any) -> bool:
    """Tell whether a recorded path stays below the folder it is relative to."""
    if not isinstance(path, str) or not path or "\\" in path or "\0" in path:
        return False
    parts = PurePosixPath(path)
    return not parts.is_absolute() and ".." not in parts.parts and not path.startswith("~")
