"""The record of one job: what went in, what came out, by which code, with which settings.

Every entry script runs its stage inside ``with recorded(snakemake):``. That sets up the log, looks
whether an input was changed since its rule made it, and after success writes
``results/provenance/jobs/<rule>/<wildcards>.json``. Two identical runs have records that differ in
nothing but times and host.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stainfuser import fingerprints
from stainfuser.code_version import CHECKOUT, code_version, environment_sha256
from stainfuser.code_version import packages_beside_the_lock as other_packages
from stainfuser.configuration import ASKING
from stainfuser.errors import InputError
from stainfuser.files import read_json, sha256_content, write_json
from stainfuser.fingerprints import Fingerprint, HashMemory
from stainfuser.logs import logged
from stainfuser.privacy import folders_of, without_paths

RECORD_FORMAT = "stainfuser job record 1"
RECORDS = Path("results/provenance/jobs")
MEMORY = Path(".snakemake/stainfuser/hashes")
CHECKSUM = "record_sha256"
# What differs between two identical runs.
OF_THIS_RUN = ("started", "ended", "seconds", "host", CHECKSUM)


@contextlib.contextmanager
def recorded(snakemake: Any, *also_made: str | Path) -> Iterator[None]:
    """Log a stage while it runs and, when it has succeeded, record what it made of what.

    Parameters
    ----------
    snakemake
        The object Snakemake gives to a script.
    also_made
        Files the stage makes beside the rule's declared outputs.
    """
    private = folders_of([list(snakemake.input), _items(snakemake.params), snakemake.config])
    with logged(snakemake.log[0], snakemake.params.get("failure"), private):
        record = JobRecord(snakemake, also_made)
        yield
        record.write()


class JobRecord:
    """The record of a job that has just begun; inputs are fingerprinted here.

    Raises
    ------
    InputError
        An input is not what the rule that made it wrote.
    """

    def __init__(self, snakemake: Any, also_made: Iterable[str | Path] = ()) -> None:
        self.snakemake = snakemake
        self.also_made = [str(path) for path in also_made]
        self.started, self.begun_s = _now(), time.monotonic()
        self.memory = HashMemory(MEMORY if MEMORY.parent.parent.is_dir() else None)
        self.path = record_path(snakemake.rule, _items(snakemake.wildcards))
        self.path.unlink(missing_ok=True)  # of outputs that are about to be made again
        self.inputs = [self._describe_input(*item) for item in _named_files(snakemake.input)]
        self._check_what_was_given()
        self.ready_s = time.monotonic()

    def write(self) -> None:
        """Fingerprint the outputs and write the record; nothing where a rule makes no file."""
        made = _named_files(self.snakemake.output) + [("also", path) for path in self.also_made]
        if not made:
            return
        done_s = time.monotonic()
        outputs = [self._describe_output(name, path) for name, path in made]
        content = {**self._settings(), "inputs": self.inputs, "outputs": outputs}
        content |= self._run(done_s)
        write_json(self.path, {**content, CHECKSUM: sha256_content(content)})

    def _settings(self) -> dict[str, Any]:
        snakemake = self.snakemake
        config = {key: value for key, value in snakemake.config.items() if key not in ASKING}
        params = _items(snakemake.params)
        return {
            "format": RECORD_FORMAT,
            "rule": snakemake.rule,
            "wildcards": _items(snakemake.wildcards),
            "params": without_paths(params),
            "seed": params.get("seed"),
            "threads": snakemake.threads,
            "config_sha256": sha256_content(without_paths(config)),
            "software": {"name": "stainfuser", **code_version()},
            "environment": {"lock_sha256": environment_sha256(), "differs": other_packages()},
        }

    def _run(self, done_s: float) -> dict[str, Any]:
        """Return when and where the job ran, and what of its time the record took."""
        now_s = time.monotonic()
        record_s = (self.ready_s - self.begun_s) + (now_s - done_s)
        seconds = {"job": round(now_s - self.begun_s, 3), "record": round(record_s, 3)}
        times = {"started": self.started, "ended": _now(), "seconds": seconds}
        return {**times, "host": host_class()}

    def _describe_input(self, name: str, path: str) -> dict[str, Any]:
        found = fingerprints.fingerprint(path, self.memory)
        maker = self._check_unchanged(path, found)
        known = {"name": name, **place_of(path), **found.to_json()}
        if maker:
            known["made_by"] = maker
            known.pop("files", None)  # the maker's record has the manifest
        return known

    def _check_unchanged(self, path: str, found: Fingerprint) -> str:
        """Return the rule that made an input; none for what the user gave."""
        files = [Path(path) / name for name in found.files] if found.files else [Path(path)]
        rule = ""
        for file in files:
            made = self.memory.maker(file)
            if made and made[1] != self.memory.sha256(file):
                wrong = f"it was changed after the rule {made[0]} made it"
                raise InputError(without_paths(str(file)), wrong, _remedy(path, made[0]))
            rule = made[0] if made else rule
        return rule

    def _check_what_was_given(self) -> None:
        """Compare the user's own files with what the makers of the other inputs read of them.

        Files of one name that lie apart are told by their role: a slide is no target image.
        """
        given: dict[tuple[str, ...], set[str]] = {}
        for known in self.inputs:
            if "made_by" not in known:
                given.setdefault(_role(known), set()).add(known["sha256"])
        for known in self.inputs if given else ():
            earlier = self._record_of(known) if "made_by" in known else {"inputs": []}
            for read in earlier["inputs"]:
                if read["sha256"] not in given.get(_role(read), {read["sha256"]}):
                    wrong = f"it was changed after the rule {known['made_by']} read it"
                    remedy = "touch it and run again, so that every rule reads it anew"
                    raise InputError(read["path"], wrong, remedy)

    def _record_of(self, made: dict[str, Any]) -> dict[str, Any]:
        """Return the record of an input's job, if that has wildcards of this one."""
        mine = _items(self.snakemake.wildcards)
        for wildcards in (mine, *({key: text} for key, text in mine.items())):
            path = record_path(made["made_by"], wildcards)
            record = read_record(path) if path.is_file() else {"outputs": []}
            if _where(made) in [_where(output) for output in record["outputs"]]:
                return record
        return {"inputs": []}

    def _describe_output(self, name: str, path: str) -> dict[str, Any]:
        found = fingerprints.fingerprint(path, self.memory)
        root = Path(path)
        pairs = {root / file: digest for file, digest in (found.files or {}).items()}
        self.memory.remember((pairs or {root: found.sha256}).items(), self.snakemake.rule)
        return {"name": name, **place_of(path), **found.to_json()}


def record_path(rule: str, wildcards: dict[str, str]) -> Path:
    """Return where the record of a job lies: one file per job, as its log."""
    *folders, name = wildcards.values() or [rule]
    return RECORDS.joinpath(*([rule] if wildcards else []), *folders, f"{name}.json")


def place_of(path: str | Path) -> dict[str, str]:
    """Return where a file lies, without telling of the machine.

    ``run``: relative to the folder of the run; ``checkout``: relative to the code's checkout, e.g.
    the shipped model; ``elsewhere``: its name alone.
    """
    full = Path(os.path.abspath(path))
    for place, root in (("run", Path.cwd()), ("checkout", CHECKOUT)):
        if full.is_relative_to(root):
            return {"place": place, "path": full.relative_to(root).as_posix()}
    return {"place": "elsewhere", "path": full.name}


def host_class() -> dict[str, Any]:
    """Return the kind of machine, without its name."""
    host = {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        host["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return host


def is_intact(record: dict[str, Any]) -> bool:
    """Tell whether a record is as it was written."""
    content = {key: value for key, value in record.items() if key != CHECKSUM}
    return sha256_content(content) == record.get(CHECKSUM)


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a job's record."""
    return read_json(path)


def _remedy(path: str, rule: str) -> str:
    return f"delete {without_paths(path)} and run again, so that {rule} makes it anew"


def _role(known: dict[str, Any]) -> tuple[str, ...]:
    return known["name"], *_where(known)


def _where(known: dict[str, Any]) -> tuple[str, str]:
    return known["place"], known["path"]


def _items(named: Any) -> dict[str, Any]:
    return dict(named.items())


def _named_files(files: Any) -> list[tuple[str, str]]:
    """Return (name, path) of every file of a rule's input or output, in its order."""
    pairs = []
    for name, value in files.items():
        paths = [value] if isinstance(value, str | Path) else list(value)
        pairs += [(name, str(path)) for path in paths]
    named = {path for _, path in pairs}
    return pairs + [("", str(path)) for path in files if str(path) not in named]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
