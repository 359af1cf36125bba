"""The user's table of images of the same tissue by several scanners."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from stainfuser.errors import InputError

COLUMNS = ("region", "scanner", "path")


def read_scanner_table(path: str | Path) -> dict[str, dict[str, Path]]:
    """Return region → scanner → image of a CSV (or TSV) with the columns region, scanner, path.

    Relative paths start at the table's folder.

    Raises
    ------
    InputError
        The table or an image is missing, a column is, a region and scanner stand twice, or fewer
        than two scanners or two regions have images: each result needs a reference of the other
        scanner that shows other tissue.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(path, "there is no such table", "give the path of a CSV")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with open(path, newline="", encoding="utf-8-sig") as handle:
        reader = csv.DictReader(handle, delimiter=delimiter)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            remedy = f"give the columns {', '.join(COLUMNS)}"
            raise InputError(path, f"it has no column {missing[0]!r}", remedy)
        rows = list(reader)
    regions: dict[str, dict[str, Path]] = defaultdict(dict)
    for row in rows:
        region, scanner = row["region"], row["scanner"]
        image = path.parent / row["path"]
        if not image.is_file():
            wrong = f"the image {row['path']} of region {region} is missing"
            raise InputError(path, wrong, "correct its path")
        if scanner in regions[region]:
            wrong = f"region {region} has two images of scanner {scanner}"
            raise InputError(path, wrong, "keep one of them")
        regions[region][scanner] = image
    paired = {name: images for name, images in regions.items() if len(images) >= 2}
    if len(paired) < 2:
        wrong = f"{len(paired)} region has images of two scanners, at least 2 regions are needed"
        raise InputError(path, wrong, "add regions that two scanners have seen")
    return paired
