"""Which slides were left out, and why."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from stainfuser.files import read_json


@dataclass(frozen=True)
class LeftOut:
    """One slide that could not be used: a machine-readable verdict and a sentence in two parts."""

    slide: str
    verdict: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.slide}: {self.verdict}: {self.reason}; {self.remedy}."


def read_index(index_path: str | Path) -> list[dict[str, str]]:
    """Return the rows of ``slides/index.csv`` as text; no rows if it does not exist."""
    if not Path(index_path).exists():
        return []
    with open(index_path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def gigapixels_of(rows: Iterable[Mapping[str, str]]) -> dict[str, float]:
    """Return slide → level-0 pixels / 1e9, of the rows of an index that have a size."""
    sized = (row for row in rows if row["width_px"] and row["height_px"])
    return {row["slide"]: int(row["width_px"]) * int(row["height_px"]) / 1e9 for row in sized}


def late_failures(failed_dir: str | Path, not_before: float) -> dict[str, LeftOut]:
    """Return slides that passed the probe and failed in a later stage.

    A record older than `not_before` (seconds since the epoch: when the configuration last changed)
    no longer counts: the slide is tried again.
    """
    found = {}
    for path in sorted(Path(failed_dir).glob("*.json")):
        if path.stat().st_mtime >= not_before:
            record = read_json(path)
            reason = (record["verdict"], record["reason"], record["remedy"])
            found[path.stem] = LeftOut(path.stem, *reason)
    return found


def left_out(index_path: str | Path, failed_dir: str | Path, not_before: float) -> list[LeftOut]:
    """Return every slide that was left out, in the order of the cohort."""
    late = late_failures(failed_dir, not_before)
    rows = read_index(index_path)
    probed = {
        row["slide"]: LeftOut(row["slide"], row["verdict"], row["reason"], row["remedy"])
        for row in rows
        if row["verdict"] != "ok"
    }
    known = {**late, **probed}
    return [known[row["slide"]] for row in rows if row["slide"] in known]
