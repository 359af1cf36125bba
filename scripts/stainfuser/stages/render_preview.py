"""All previews on one page that loads nothing, ordered by target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stainfuser import __version__
from stainfuser.embedded_pictures import embed_file
from stainfuser.failures import read_index
from stainfuser.files import read_json, write_text

TARGET_PX = 256
# A page with the pictures of more entries than these is slow to open: they become smaller.
MANY, SMALL_PX = 200, 900


def render_preview(
    *,
    record_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    index_path: str | Path,
    page_path: str | Path,
    tiles: int,
) -> None:
    """Write the contact sheet of all slides and targets.

    Parameters
    ----------
    record_paths
        Records of `preview_slide`; the strip of each lies beside it (.jpg).
    target_paths
        Reference images, named like the targets.
    index_path
        CSV of all slides with their verdicts: those that cannot be used are listed.
    page_path
        One HTML file.
    tiles
        Tiles per slide, for the explanation.
    """
    entries: dict[str, list[dict[str, Any]]] = {Path(path).stem: [] for path in target_paths}
    largest_px = SMALL_PX if len(record_paths) > MANY else None
    for path in map(Path, record_paths):
        record = read_json(path)
        alt = f"{record['slide']}, above as it is, below in the stain of {record['target']}"
        picture = embed_file(path.with_suffix(".jpg"), alt, largest_px)
        entries.setdefault(record["target"], []).append({**record, "picture": picture})
    pictures = {Path(path).stem: embed_file(path, "target", TARGET_PX) for path in target_paths}
    targets = [
        {"name": name, "picture": pictures.get(name), "entries": listed}
        for name, listed in entries.items()
        if listed
    ]
    lines = [
        f"{row['slide']}: {row['reason']}; {row['remedy']}"
        for row in read_index(index_path)
        if row["verdict"] != "ok"
    ]
    page = _template().render(
        version=__version__, count=len(record_paths), tiles=tiles, targets=targets, left_out=lines
    )
    write_text(page_path, page)


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parents[1] / "report"
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("preview.html.j2")
