"""The slide table: one row per slide, columns checked, values as text.

Read while the workflow is parsed, so it imports the standard library only.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from stainfuser.errors import InputError

TABLE_SUFFIXES = frozenset({".csv", ".tsv"})
REQUIRED_COLUMNS = ("slide", "path")
OPTIONAL_COLUMNS = ("mpp", "site", "scanner", "split", "target")


@dataclass(frozen=True)
class SlideRow:
    """One row: stripped text by column, and `mpp` as um per level-0 px, or None."""

    text: dict[str, str]
    mpp: float | None

    def optional(self, column: str) -> str | None:
        """Return the text of an optional column, None where it is empty or absent."""
        return self.text.get(column) or None


def read_slide_table(path: Path) -> list[SlideRow]:
    """Read a UTF-8 .csv (comma or semicolon) or .tsv slide table.

    Raises
    ------
    InputError
        The table is missing, empty or not UTF-8 text; it lacks, repeats or has unknown columns; a
        row has too few or too many fields, no slide, no path or an mpp out of range.
    """
    text = _read_text(path)
    header = text.splitlines()[0] if text.strip() else ""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    if delimiter == "," and ";" in header and "," not in header:
        delimiter = ";"  # what spreadsheets save where the comma is the decimal sign
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter)
    records = [(reader.line_num, record) for record in reader if any(map(str.strip, record))]
    columns = [column.strip() for column in records[0][1]] if records else []
    _check_columns(path, columns)
    if len(records) < 2:
        raise InputError(path, "the slide table has no rows", "add one row per slide")
    return [_row(path, line, columns, record) for line, record in records[1:]]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, "there is no such slide table", "check the path") from None
    except UnicodeDecodeError:
        raise InputError(path, "the slide table is not UTF-8 text", "save it as UTF-8") from None


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    faults = {
        "lacks": [column for column in REQUIRED_COLUMNS if column not in columns],
        "has unknown": [column for column in columns if column not in known],
        "repeats": [column for column, count in Counter(columns).items() if count > 1],
    }
    for fault, names in faults.items():
        if names:
            listed = ", ".join(map(repr, names))
            remedy = (
                f"the columns are {', '.join(known)}, of which {' and '.join(REQUIRED_COLUMNS)} "
                "are needed"
            )
            raise InputError(path, f"the slide table {fault} column(s) {listed}", remedy)


def _row(path: Path, line: int, columns: Sequence[str], record: Sequence[str]) -> SlideRow:
    where = f"{path}, line {line}"
    if len(record) != len(columns):
        wrong = f"{len(record)} fields, expected {len(columns)}"
        raise InputError(where, wrong, "quote fields that contain the delimiter")
    text = {column: value.strip() for column, value in zip(columns, record, strict=True)}
    for column in REQUIRED_COLUMNS:
        if not text[column]:
            raise InputError(where, f"the column {column} is empty", "fill it in")
    return SlideRow(text, _mpp(where, text.get("mpp", "")))


def _mpp(where: str, text: str) -> float | None:
    if not text:
        return None
    try:
        mpp = float(text)
    except ValueError:
        mpp = 0.0
    if not 0.05 <= mpp <= 20:
        wrong = f"mpp is {text!r}, expected 0.05 to 20 um per px"
        raise InputError(where, wrong, "correct it, or leave it empty if the slide says it")
    return mpp
