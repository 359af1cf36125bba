"""Which code and which pinned environment made a result."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from stainfuser import __version__

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent.parent
# What of a checkout decides on results; documents and tests do not.
CODE_PATHS = ("Snakefile", "scripts", "workflow", "envs")
SOURCE_SUFFIXES = {".py", ".j2", ".css", ".js", ".smk"}
LOCK_FILES = ("envs/constraints.txt", "envs/requirements.txt")
UNKNOWN = "unknown"


@cache
def code_version() -> dict[str, str]:
    """Return the version, the commit (with ``-dirty`` where it was edited) and the sources' hash.

    The commit is ``unknown`` outside a checkout; the hash of the package's own files never is.
    """
    return {
        "version": __version__,
        "commit": _commit(),
        "sources_sha256": sources_sha256(PACKAGE),
    }


@cache
def environment_sha256() -> str:
    """Return the hash of the files that pin every package; ``unknown`` where they do not lie."""
    paths = [CHECKOUT / name for name in LOCK_FILES]
    if not all(path.is_file() for path in paths):
        return UNKNOWN
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


@cache
def packages_beside_the_lock() -> dict[str, str]:
    """Return the direct dependencies whose installed version is not the pinned one."""
    path = CHECKOUT / LOCK_FILES[1]
    if not path.is_file():
        return {}
    pins = [line.split("==") for line in path.read_text().splitlines() if "==" in line]
    found = {name: _installed(name) for name, _ in pins}
    # A build's label (2.13.0+cpu) is no other version.
    return {name: found[name] for name, pin in pins if found[name].split("+")[0] != pin.strip()}


def sources_sha256(folder: Path) -> str:
    """Return one hash of a folder's source files: names and contents, weights left out."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in SOURCE_SUFFIXES):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _commit() -> str:
    top = _git("rev-parse", "--show-toplevel")
    # A package inside somebody's own repository is not that repository's code.
    if not top or not (CHECKOUT / "Snakefile").is_file() or Path(top).resolve() != CHECKOUT:
        return UNKNOWN
    edited = _git("status", "--porcelain", "--", *CODE_PATHS)
    return f"{_git('rev-parse', 'HEAD') or UNKNOWN}{'-dirty' if edited else ''}"


def _git(*arguments: str) -> str:
    environment = {key: text for key, text in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "-C", str(CHECKOUT), "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=30, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"
