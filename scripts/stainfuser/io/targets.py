"""The looks to normalise to: names and reference images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stainfuser.errors import ConfigError, InputError

KEY = "configuration key target"


def resolve_targets(target: Any) -> dict[str, Path]:
    """Return name → reference image for an image, a list of images or a mapping.

    Names of unnamed images are their file stems. The images are not opened here.

    Raises
    ------
    ConfigError
        Nothing given, two targets of one name, or a name that cannot be part of a path.
    InputError
        An image that does not exist or is a folder.
    """
    if isinstance(target, Mapping):
        pairs = [(str(name), Path(str(path))) for name, path in target.items()]
    else:
        paths = target if isinstance(target, list) else [target]
        pairs = [(Path(str(path)).stem, Path(str(path))) for path in paths if path]
    if not pairs:
        raise ConfigError(KEY, "no target is given", "name a reference image")
    targets: dict[str, Path] = {}
    for name, path in pairs:
        _check(name, path, targets)
        targets[name] = path
    return targets


def _check(name: str, path: Path, known: Mapping[str, Path]) -> None:
    if name in known:
        remedy = "name them apart with a mapping such as target='{a: x/he.png, b: y/he.png}'"
        raise ConfigError(KEY, f"two targets are called {name}", remedy)
    if not name or name.startswith(".") or any(mark in name for mark in "/{}"):
        raise ConfigError(KEY, f"{name!r} cannot name a folder", "choose a name without / { }")
    if not path.exists():
        raise InputError(path, "the target image does not exist", "check the path given as target")
    if path.is_dir():
        raise InputError(path, "the target is a folder, not an image", "name one image or a list")
