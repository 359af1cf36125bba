"""Which slides there are: a folder, a glob, a table or one file, resolved to named entries.

Read while the workflow is parsed, so it imports the standard library only and opens nothing but
the table and the heads of .tif files. A file that cannot be used is not an error here: its entry
stays, and `probe_slide` gives the verdict.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stainfuser.errors import InputError
from stainfuser.io.kinds import (
    SLIDE_SUFFIXES,
    is_image,
    is_slide_like,
    kind_of,
    list_images,
    visible_paths,
)
from stainfuser.io.slide_table import TABLE_SUFFIXES, SlideRow, read_slide_table

_MAX_NAME_BYTES = 200  # leaves room for suffixes in a file name of 255 bytes


@dataclass(frozen=True)
class CohortEntry:
    """One slide (`kind` "slide") or one set of plain images (`kind` "images").

    `path` is a file, or the folder of an image set. `mpp` is um per level-0 px, if the table
    says it; `site`, `scanner`, `split` and `target` are the table's words, or None.
    """

    name: str
    path: Path
    kind: str
    mpp: float | None = None
    site: str | None = None
    scanner: str | None = None
    split: str | None = None
    target: str | None = None


def resolve_cohort(slides: str | Path, base_dir: str | Path = ".") -> list[CohortEntry]:
    """Return the entries of a folder, a glob, a .csv/.tsv table or one file, sorted by name.

    Relative folders, globs and files are looked up in `base_dir`, paths of a table beside the
    table. A folder stands for the slides in it, or, if it holds none, for one set of the plain
    images in it. A glob that matches all plain images of a folder stands for one set as well;
    one that matches some of them makes an entry of each.

    Raises
    ------
    InputError
        Nothing was found; the table is unusable (see `read_slide_table`); two entries have the
        same name, or a name cannot be part of a file name.
    """
    asked = str(slides)
    path = Path(base_dir, asked).expanduser()
    if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir():
        entries = [_row_entry(path.parent, row) for row in read_slide_table(path)]
    elif os.path.lexists(path) or not glob.has_magic(asked):
        entries = _single_entries(path, asked)
    else:
        entries = _glob_entries(str(path), asked)
    _check_names(entries)
    return sorted(entries, key=lambda entry: entry.name)


def _single_entries(path: Path, asked: str) -> list[CohortEntry]:
    """Return the entries of a folder, or of one file of whatever suffix."""
    if path.is_dir() and not is_slide_like(path):
        entries = _folder_entries(path)
        if not entries:
            remedy = "check the path; for slides in subfolders give a glob such as '/data/**/*.svs'"
            raise _nothing_found(asked, "the folder holds no slides", remedy)
        return entries
    if not os.path.lexists(path):
        raise _nothing_found(asked, "there is no such file or folder", "check the path")
    return [CohortEntry(path.stem, path, kind_of(path))]


def _glob_entries(pattern: str, asked: str) -> list[CohortEntry]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    folders, images, slides = [], [], []
    for path in matches:
        if is_image(path):
            images.append(path)
        elif is_slide_like(path):
            slides.append(path)
        elif path.is_dir():
            folders.append(path)
    # A recursive glob matches folders and what is in them: count each once.
    found = {path.parent for path in (*images, *slides)}
    entries = _slide_entries(slides) + _image_entries(images)
    entries += [
        entry for folder in folders if folder not in found for entry in _folder_entries(folder)
    ]
    if not entries:
        remedy = "check the pattern, and quote it on the command line"
        raise _nothing_found(asked, "no slide matches", remedy)
    return entries


def _nothing_found(asked: str, wrong: str, remedy: str) -> InputError:
    kinds = " ".join(sorted(SLIDE_SUFFIXES))
    expected = f"expected files ending in {kinds}, or images (.png .jpg .jpeg)"
    return InputError(f"slides: {asked}", f"{wrong}, {expected}", remedy)


def _folder_entries(folder: Path) -> list[CohortEntry]:
    children = visible_paths(folder)
    images = [child for child in children if is_image(child)]
    among_images = set(images)
    slides = [child for child in children if is_slide_like(child) and child not in among_images]
    if slides:
        # Plain images beside slides are references, overviews or parts of a .vms slide.
        return _slide_entries(slides)
    return [CohortEntry(folder.resolve().name, folder, "images")] if images else []


def _slide_entries(paths: Iterable[Path]) -> list[CohortEntry]:
    """One entry per slide; the .dcm files of one folder are one slide, named after the folder."""
    entries, dicom_folders = [], set()
    for path in paths:
        if path.suffix.lower() != ".dcm" or path.is_dir():
            entries.append(CohortEntry(path.stem, path, "slide"))
        elif path.parent not in dicom_folders:
            dicom_folders.add(path.parent)
            entries.append(CohortEntry(path.parent.resolve().name, path, "slide"))
    return entries


def _image_entries(images: Sequence[Path]) -> list[CohortEntry]:
    """One entry per folder whose images were all matched, one per image of other folders."""
    matched = Counter(path.parent for path in images)
    whole = {folder for folder, count in matched.items() if count == len(list_images(folder))}
    entries = [CohortEntry(folder.resolve().name, folder, "images") for folder in sorted(whole)]
    single = [path for path in images if path.parent not in whole]
    return entries + [CohortEntry(path.stem, path, "images") for path in single]


def _row_entry(table_dir: Path, row: SlideRow) -> CohortEntry:
    path = Path(os.path.normpath(table_dir / Path(row.text["path"]).expanduser()))
    kind = kind_of(path)
    if kind == "slide" and not path.suffix and path.is_dir():
        path = next((child for child in visible_paths(path) if child.suffix == ".dcm"), path)
    return CohortEntry(
        name=row.text["slide"],
        path=path,
        kind=kind,
        mpp=row.mpp,
        site=row.optional("site"),
        scanner=row.optional("scanner"),
        split=row.optional("split"),
        target=row.optional("target"),
    )


def _check_names(entries: Sequence[CohortEntry]) -> None:
    first: dict[str, CohortEntry] = {}
    for entry in entries:
        _check_name(entry.name)
        other = first.setdefault(entry.name, entry)
        if other is not entry:
            wrong = f"two slides have this name ({other.path} and {entry.path})"
            remedy = "give each its own name in the column slide of a slide table"
            raise InputError(f"slide {entry.name!r}", wrong, remedy)


def _check_name(name: str) -> None:
    bad = sorted(set(name) & set("/\\{}")) + [sign for sign in name if not sign.isprintable()]
    if bad:
        wrong = f"a slide name cannot contain {' '.join(map(repr, bad))}"
    elif not name.strip(". ") or name != name.strip() or name.startswith("."):
        wrong = "a slide name cannot be blank, begin with a dot or have spaces around it"
    elif len(name.encode()) > _MAX_NAME_BYTES:
        wrong = f"a slide name cannot be longer than {_MAX_NAME_BYTES} bytes"
    else:
        return
    remedy = "name it otherwise in the column slide of a slide table"
    raise InputError(f"slide {name!r}", wrong, remedy)
