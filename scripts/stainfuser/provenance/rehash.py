"""Hash again what records name: where it lies now, and what became of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stainfuser.fingerprints import NOT_CONTENT, Fingerprint, HashMemory, fingerprint
from stainfuser.logs import progress
from stainfuser.provenance.ledger import Item, Where

# Folders of results that hold no product.
NOT_PRODUCTS = ("benchmarks", "logs", "provenance", "work", "slides/failed")
NOT_PRODUCT_FILES = ("config.yaml", ".gitkeep")


@dataclass
class Places:
    """Where the files of a run lie now.

    Attributes
    ----------
    run, checkout
        Folder of the run, and of the code.
    given
        Paths that the configuration names outside both, e.g. slides: a file's name → its paths.
    """

    run: Path
    checkout: Path
    given: dict[str, list[Path]] = field(default_factory=dict)

    def candidates(self, where: Where) -> list[Path]:
        """Return the paths at which something may lie that exist; links out of the run do not."""
        place, path = where
        if place == "elsewhere":
            return [known for known in self.given.get(path, []) if known.exists()]
        full = (self.run if place == "run" else self.checkout) / path
        if not full.exists() or (place == "run" and not self._stays_inside(path, full)):
            return []
        return [full]

    def _stays_inside(self, path: str, full: Path) -> bool:
        """Products may lie on another disk as a whole, but no single one points elsewhere."""
        results = self.run / "results"
        if not full.is_relative_to(results):
            return True  # a user's own file may well be a link
        return full.resolve().is_relative_to(results.resolve())


class Rehasher:
    """Fingerprints of what lies there now, each file read once, several at a time."""

    def __init__(self, places: Places, workers: int = 1) -> None:
        self.places = places
        self.workers = workers
        self._found: dict[Path, Fingerprint | None] = {}

    def read(self, wheres: Iterable[Where]) -> None:
        """Hash everything at these places."""
        paths = {path for where in wheres for path in self.places.candidates(where)}
        todo = sorted((path for path in paths if path not in self._found), key=str)
        if not todo:
            return
        with ThreadPoolExecutor(self.workers) as pool:
            prints = pool.map(_fingerprint_or_none, todo)
            for path, found in zip(todo, progress(prints, "hashed", len(todo)), strict=True):
                self._found[path] = found

    def at(self, where: Where) -> list[Fingerprint]:
        """Return what lies at a place: nothing, one thing, or several of one name."""
        prints = (self.path_hash(path) for path in self.places.candidates(where))
        return [found for found in prints if found is not None]

    def matches(self, item: Item) -> bool:
        """Tell whether what was recorded lies where it was, with the same bytes."""
        return any(found.sha256 == item.sha256 for found in self.at(item.where))

    def path_hash(self, path: Path) -> Fingerprint | None:
        """Return the fingerprint of any path."""
        if path not in self._found:
            self._found[path] = _fingerprint_or_none(path)
        return self._found[path]


def altered_files(item: Item, found: Fingerprint) -> list[str]:
    """Return which files of a folder differ from its manifest, in words."""
    then, now = item.files or {}, found.files or {}
    altered = [
        f"{name} is altered" for name in sorted(then.keys() & now.keys()) if then[name] != now[name]
    ]
    missing = [f"{name} is missing" for name in sorted(then.keys() - now.keys())]
    added = [f"{name} was added" for name in sorted(now.keys() - then.keys())]
    return altered + missing + added


def product_files(results: Path) -> Iterator[Path]:
    """Return every file below results that may be a product."""
    skipped = {results / name for name in NOT_PRODUCTS}
    for base, folders, names in os.walk(results):
        folders[:] = sorted(name for name in folders if Path(base, name) not in skipped)
        for name in sorted(names):
            is_top = Path(base) == results and name in NOT_PRODUCT_FILES
            if name not in NOT_CONTENT and not is_top and not name.startswith("."):
                yield Path(base, name)


def find_by_hash(
    paths: Iterable[Path], size: int, sha256: str, read: Callable[[Path], Fingerprint | None]
) -> Path | None:
    """Return the first file of a size and hash."""
    for path in paths:
        if path.stat().st_size == size:
            found = read(path)
            if found is not None and found.sha256 == sha256:
                return path
    return None


def _fingerprint_or_none(path: Path) -> Fingerprint | None:
    try:
        return fingerprint(path, HashMemory(None))
    except OSError:
        return None  # it went, or cannot be read: as good as missing
