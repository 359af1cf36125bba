"""SHA-256 of files and folders, remembered so that one file is not read again by every rule."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stainfuser.files import remember_hash, sha256_content, sha256_file

# Snakemake touches this in folders that a rule makes.
NOT_CONTENT = {".snakemake_timestamp"}
# A file changed within this time could change again without a new modification time.
FRESH_S = 0.05
# A folder of more files than these (published training pairs come in millions) is told by their
# names and sizes: reading it would take longer than the job.
MOST_HASHED = 20_000


@dataclass(frozen=True)
class Fingerprint:
    """What a file or folder holds.

    Attributes
    ----------
    sha256
        Hash of the bytes; of a folder, of its sorted manifest.
    size
        Bytes in all.
    files
        Manifest of a folder: relative name → SHA-256; empty where it is too large to be read; None
        for a file.
    """

    sha256: str
    size: int
    files: dict[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-able form."""
        known = {"sha256": self.sha256, "bytes": self.size}
        return known if self.files is None else {**known, "files": self.files}


@dataclass
class HashMemory:
    """Hashes of files that were read before, in a few append-only files.

    A line holds no path but a digest of it, so that nothing is told of where slides lie. It is a
    memory and no proof: what is lost or damaged is hashed again, and an audit never asks it.

    Attributes
    ----------
    folder
        Where the lines lie, in `SHARDS` files; None remembers nothing beyond this process.
    """

    folder: Path | None
    _shards: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)

    def sha256(self, path: Path) -> str:
        """Return the hash of a file, read only if its size or modification time is new."""
        state, key = _state(path), _key(path)
        for line in reversed(self._lines(key)):
            if (line["s"], line["m"]) == state:
                remember_hash(path, line["h"])
                return line["h"]
        digest = sha256_file(path)
        remember_hash(path, digest)
        self.remember([(path, digest)])
        return digest

    def maker(self, path: Path) -> tuple[str, str] | None:
        """Return the rule that last made a file and the hash it wrote; None if none is known."""
        made = [line for line in self._lines(_key(path)) if line.get("r")]
        return (made[-1]["r"], made[-1]["h"]) if made else None

    def remember(self, hashed: Iterable[tuple[Path, str]], rule: str = "") -> None:
        """Append hashes, with the rule that made the files."""
        by_shard: dict[str, list[str]] = {}
        for path, digest in hashed:
            size, mtime_ns = _state(path)
            if not rule and not time.time() - mtime_ns / 1e9 - FRESH_S >= 0:
                continue  # from the future or this moment: its time does not tell a change
            key = _key(path)
            line = {
                "p": key,
                "s": size,
                "m": mtime_ns,
                "h": digest,
                **({"r": rule} if rule else {}),
            }
            self._shard(key[:2]).setdefault(key, []).append(line)
            by_shard.setdefault(key[:2], []).append(json.dumps(line) + "\n")
        for shard, lines in by_shard.items():
            self._append(shard, "".join(lines).encode())

    def _append(self, shard: str, content: bytes) -> None:
        if self.folder is None:
            return
        with contextlib.suppress(OSError):  # a memory that cannot be kept costs time alone
            self.folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            handle = os.open(self.folder / f"{shard}.jsonl", flags, 0o666)
            try:
                os.write(handle, content)
            finally:
                os.close(handle)

    def _lines(self, key: str) -> list[dict[str, Any]]:
        return self._shard(key[:2]).get(key, [])

    def _shard(self, shard: str) -> dict[str, list[dict[str, Any]]]:
        if shard not in self._shards:
            self._shards[shard] = {}
            path = self.folder / f"{shard}.jsonl" if self.folder else None
            if path is not None and path.exists():
                for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    line = _parse(text)
                    if line:
                        self._shards[shard].setdefault(line["p"], []).append(line)
        return self._shards[shard]


def fingerprint(path: str | Path, memory: HashMemory) -> Fingerprint:
    """Return what a file, a folder, or a slide of several files holds.

    A MIRAX slide is hashed with its folder, a DICOM slide with the files beside it.
    """
    path = Path(path)
    companions = _companions(path)
    if path.is_dir():
        return of_manifest(path, _files_below(path), memory)
    if companions:
        return of_manifest(path.parent, [path, *companions], memory)
    return Fingerprint(memory.sha256(path), path.stat().st_size)


def of_manifest(root: Path, paths: Iterable[Path], memory: HashMemory) -> Fingerprint:
    """Return the fingerprint of several files below a folder."""
    paths = sorted(paths)
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
    if len(paths) > MOST_HASHED:
        return Fingerprint(sha256_content(sizes), sum(sizes.values()), {})
    files = {path.relative_to(root).as_posix(): memory.sha256(path) for path in paths}
    return Fingerprint(sha256_content(files), sum(sizes.values()), files)


def _files_below(folder: Path) -> list[Path]:
    found = []
    for base, _, names in os.walk(folder, followlinks=True):
        found += [Path(base) / name for name in names if name not in NOT_CONTENT]
    return [path for path in found if path.is_file()]


def _companions(path: Path) -> list[Path]:
    suffix = path.suffix.lower()
    if suffix == ".mrxs" and path.with_suffix("").is_dir():
        return _files_below(path.with_suffix(""))
    if suffix == ".dcm" and path.is_file():
        others = (other for other in path.parent.iterdir() if other.suffix.lower() == ".dcm")
        return sorted(other for other in others if other != path)
    return []


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _key(path: Path) -> str:
    return hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:32]


def _parse(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
        is_whole = {"p", "s", "m", "h"} <= set(line) and len(line["h"]) == 64
    except (ValueError, TypeError):
        return None  # two processes wrote at once, on a file system that allows it
    return line if is_whole else None
