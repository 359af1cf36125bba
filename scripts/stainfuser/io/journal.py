"""Journal of finished blocks: what a killed writer has already got right.

A text file of one record per line, each with its checksum; the first record holds the key. A line
torn by a kill fails its checksum and ends the reading, so that at worst one block is done again.
Lines reach the system one by one, and so survive the end of the process; only `sync` makes them
survive the end of the machine, where what they speak of may be missing: whoever reads them has to
look (`PyramidWriter` keeps checksums).
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
        The intact records, in order.
    """

    def __init__(self, path: Path, key: str) -> None:
        found = _read_records(path)
        resumed = bool(found) and found[0][0] == {"key": key}
        self.records: list[Record] = [record for record, _ in found[1:]] if resumed else []
        self._ends = [end for _, end in found] if resumed else [0]
        self._handle = open(path, "ab")  # noqa: SIM115 - closed by close()
        self._handle.truncate(self._ends[-1])
        if not resumed:
            self._ends = []
            self._append({"key": key})
        self.sync()

    def add(self, record: Record) -> None:
        """Append a record."""
        self._append(record)
        self.records.append(record)

    def keep(self, count: int) -> None:
        """Forget all records but the first `count`."""
        del self.records[count:], self._ends[count + 1 :]
        self._handle.truncate(self._ends[-1])
        self.sync()

    def sync(self) -> None:
        """Force all records to disk; what they speak of should be there already."""
        os.fsync(self._handle.fileno())

    def _append(self, record: Record) -> None:
        line = _encode(record)
        self._handle.write(line)
        self._handle.flush()
        self._ends.append((self._ends[-1] if self._ends else 0) + len(line))

    def close(self) -> None:
        """Close the file."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _encode(record: Record) -> bytes:
    text = json.dumps(record, separators=(",", ":"), sort_keys=True).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_records(path: Path) -> list[tuple[Record, int]]:
    """Return the intact records, each with the byte it ends before."""
    records: list[tuple[Record, int]] = []
    end = 0
    content = path.read_bytes() if path.exists() else b""
    for line in content.splitlines(keepends=True):
        checksum, _, text = line.rstrip(b"\n").partition(b" ")
        if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(text):
            break
        end += len(line)
        records.append((json.loads(text), end))
    return records
