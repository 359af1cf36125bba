"""What a person typed or a machine is called stays out of what ships: paths become names."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

_STARTS_ELSEWHERE = re.compile(r"^(?:/|~|\.\./|\\\\|[A-Za-z]:[\\/])")
# A path that is absolute and has no blanks, inside a sentence; addresses (https://…) are none.
_ABSOLUTE = re.compile(r"(?<![\w.:/<])(?:~|[A-Za-z]:)?/(?:[^\s/'\"<>|,;()\[\]{}]+/)+")


def is_elsewhere(text: str) -> bool:
    """Tell whether a text is a path that says where on somebody's machine something lies."""
    return bool(_STARTS_ELSEWHERE.match(text))


def without_paths(value: Any) -> Any:
    """Return a JSON-able copy of a value in which paths from elsewhere are reduced to a name.

    ``/data/smith/*.svs`` becomes ``*.svs``; relative paths stay, they say nothing of the machine.
    """
    if isinstance(value, Mapping):
        return {str(key): without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [without_paths(item) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return last_part(value) if is_elsewhere(value) else value
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def last_part(path: str) -> str:
    """Return the name of a POSIX or Windows path."""
    is_windows = "\\" in path or re.match(r"^[A-Za-z]:/", path)
    return (PureWindowsPath(path) if is_windows else PurePosixPath(path)).name


def folders_of(value: Any) -> set[str]:
    """Return the folders of every path from elsewhere that a nested value holds, and theirs."""
    if isinstance(value, Mapping):
        return folders_of(list(value.values()))
    if isinstance(value, list | tuple | set):
        return {folder for item in value for folder in folders_of(item)}
    if isinstance(value, str | Path) and is_elsewhere(str(value)):
        return {str(folder) for folder in PurePosixPath(str(value)).parents} - {"/", "."}
    return set()


def machine_folders() -> set[str]:
    """Return the folders of this process that only this machine has."""
    package = Path(__file__).resolve().parents[2]
    known = {Path.cwd(), Path.home(), package, Path(sys.prefix), Path(tempfile.gettempdir())}
    return {str(folder) for folder in known} - {"/"}


def redact(text: str, folders: Iterable[str] = ()) -> str:
    """Return a text in which every path is relative to a known folder, or a name alone.

    Known folders come first, because only they may hold blanks.
    """
    for folder in sorted({*folders, *machine_folders()}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(folder)}(/|(?![\w.-]))", _shorten(folder), text)
    return _ABSOLUTE.sub("", text)


def _shorten(folder: str) -> Callable[[re.Match[str]], str]:
    return lambda found: "" if found[1] else last_part(folder)
