"""Journal of finished blocks: what a killed writer has already got right.

A text file of one record per line, each with its checksum; the first record holds the key. A line
torn by a kill fails its checksum and ends the reading, so that at worst one block is done again.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any, Self

Record = dict[str, Any]


class Journal:
    """Append-only list of records that belong to one key.

    Parameters
    ----------
    path
        The journal's file; it is created if absent, and begun anew if it holds another key.
    key
        Hash of everything the records depend on.

    Attributes
    ----------
    records
        The intact records, in order. Those given to `add` count from the next `flush` on.
    """

    def __init__(self, path: Path, key: str) -> None:
        found, intact_bytes = _read_records(path)
        resumed = bool(found) and found[0] == {"key": key}
        self.records: list[Record] = found[1:] if resumed else []
        self._pending: list[Record] = []
        self._handle = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._handle.truncate(intact_bytes if resumed else 0)
        if not resumed:
            self._append([{"key": key}])

    def add(self, record: Record) -> None:
        """Remember a record; it is safe only after `flush`."""
        self._pending.append(record)

    def flush(self) -> None:
        """Force the pending records to disk; what they speak of must be there already."""
        pending, self._pending = self._pending, []
        if pending:
            self._append(pending)
            self.records += pending

    def restart(self) -> None:
        """Forget all records."""
        key, *_ = _read_records(Path(self._handle.name))[0]
        self._handle.truncate(0)
        self.records, self._pending = [], []
        self._append([key])

    def _append(self, records: list[Record]) -> None:
        self._handle.write(b"".join(map(_encode, records)))
        self._handle.flush()
        os.fsync(self._handle.fileno())

    def close(self) -> None:
        """Close the file; pending records are given up."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _encode(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_records(path: Path) -> tuple[list[Record], int]:
    """Return the intact records and the number of bytes they take."""
    records: list[Record] = []
    intact_bytes = 0
    content = path.read_bytes() if path.exists() else b""
    for line in content.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            break
        records.append(json.loads(text))
        intact_bytes += len(line)
    return records, intact_bytes
