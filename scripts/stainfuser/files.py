"""Files that are either whole or absent, and their fingerprints."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import functools
import glob
import hashlib
import json
import logging
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

LOGGER = logging.getLogger("stainfuser")
_KNOWN_HASHES: dict[str, tuple[tuple[int, int, int, int], str]] = {}


@contextlib.contextmanager
def atomic_path(final: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `final`; on success sync it and rename it to `final`.

    On any error the temporary file is removed and `final` stays as it was; of a process that was
    killed, the next one to write `final` on this machine removes it. The suffix is kept
    (``slide.tmp.png``), because many libraries choose a format by it.
    """
    final = Path(final)
    final.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(final)
    partial = final.with_name(f".{final.stem}.{_process_space()}-{os.getpid()}.tmp{final.suffix}")
    try:
        yield partial
        sync_file(partial)
        os.replace(partial, final)
    finally:
        partial.unlink(missing_ok=True)


def _remove_leftovers(final: Path) -> None:
    """Remove temporary files of `final` whose process is dead; others are not judged."""
    stem, suffix = glob.escape(final.stem), glob.escape(final.suffix)
    for path in final.parent.glob(f".{stem}.{_process_space()}-*.tmp{suffix}"):
        process = path.name.removesuffix(f".tmp{final.suffix}").rpartition("-")[2]
        if process.isdecimal() and not _is_alive(int(process)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@functools.cache
def _process_space() -> str:
    """Return eight digits that stand for where process numbers mean what they mean here.

    That is one start of one machine, and within it one namespace (a container has its own).
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        space = f"{boot}{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        space = str(uuid.getnode())
    return hashlib.sha256(space.encode()).hexdigest()[:8]


def sync_file(path: str | Path) -> None:
    """Force a file's content to disk, so that a rename never precedes it."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_files(folder: Path) -> None:
    """Force every file below a folder to disk."""
    for path in folder.rglob("*.*"):
        if path.is_file():
            sync_file(path)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as sorted, indented UTF-8 JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_rows(path: str | Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows (column → value) as UTF-8 CSV with a header, atomically."""
    with atomic_path(path) as partial, open(partial, "w", newline="", encoding="utf-8") as handle:
        table = csv.DictWriter(handle, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, numbers to six digits, atomically."""
    with atomic_path(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n", float_format="%.6g")


def read_json(path: str | Path) -> Any:
    """Read a UTF-8 JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    known = _KNOWN_HASHES.get(os.path.abspath(path))
    if known and known[0] == _change_state(path):
        return known[1]
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def remember_hash(path: str | Path, digest: str) -> None:
    """Spare this process the reading of a file whose hash has just been found."""
    _KNOWN_HASHES[os.path.abspath(path)] = (_change_state(path), digest)


def _change_state(path: str | Path) -> tuple[int, int, int, int]:
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def sha256_content(content: Any) -> str:
    """Return the SHA-256 of a JSON-able value; key order does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def exclusive_folder(folder: str | Path) -> Iterator[Path]:
    """Create a work folder and hold it alone until the block ends; wait while another process does.

    A run killed with SIGKILL can leave its jobs alive; the jobs of the next run then wait here
    until those are done, instead of both writing one work folder. The kernel releases the lock of
    a dead process.
    """
    folder = Path(folder)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / "lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                LOGGER.warning("%s: another process works here; waiting for it.", folder.name)
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not _is_file_at(handle.fileno(), folder / "lock"):
                continue  # whoever held the folder has removed it: another one has to be held
            yield folder
            return


def _is_file_at(handle: int, path: Path) -> bool:
    try:
        found = path.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (found.st_dev, found.st_ino) == (mine.st_dev, mine.st_ino)
