"""One table of all slides with their verdicts."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stainfuser.files import atomic_path, read_json
from stainfuser.logs import LOGGER

COLUMNS = (
    "slide",
    "kind",
    "verdict",
    "reason",
    "remedy",
    "width_px",
    "height_px",
    "mpp",
    "sha256",
)


def list_slides(*, json_paths: Sequence[str | Path], index_path: str | Path) -> None:
    """Write the index (UTF-8 CSV, one row per slide, sorted by name) from the probes' records."""
    records = sorted((read_json(path) for path in json_paths), key=lambda record: record["slide"])
    with (
        atomic_path(index_path) as partial,
        open(partial, "w", encoding="utf-8", newline="") as out,
    ):
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            values = [record[column] for column in COLUMNS]
            writer.writerow(["" if value is None else value for value in values])
    counts = Counter(record["verdict"] for record in records)
    LOGGER.info("%d slides: %s", len(records), _in_words(counts))
    for record in records:
        if record["verdict"] != "ok":
            reason, remedy = record["reason"], record["remedy"]
            LOGGER.warning("%s: %s: %s; %s.", record["slide"], record["verdict"], reason, remedy)


def _in_words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
