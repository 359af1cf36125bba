"""Files and folders in a crate: by their paths, or by their hashes where they lie elsewhere."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stainfuser.files import sha256_file
from stainfuser.provenance.ledger import Item, Job, Ledger, Where

if TYPE_CHECKING:
    from rocrate.model.entity import Entity
    from rocrate.rocrate import ROCrate

MEDIA_TYPES = {
    ".svs": "image/tiff",
    ".h5": "application/x-hdf5",
    ".parquet": "application/vnd.apache.parquet",
    ".safetensors": "application/octet-stream",
    ".npz": "application/octet-stream",
    ".yaml": "application/yaml",
    ".md": "text/markdown",
    ".smk": "text/plain",
}


@dataclass
class CrateFiles:
    """The data entities of a crate.

    Attributes
    ----------
    crate, ledger
        The crate, and the records.
    crate_dir, run
        Folder of the crate, and of the run.
    """

    crate: ROCrate
    ledger: Ledger
    crate_dir: Path
    run: Path
    _items: dict[tuple[Where, str], Entity] = field(default_factory=dict)

    def own_file(self, name: str, kinds: list[str]) -> Entity:
        """Add a file that lies in the crate's folder."""
        path = self.crate_dir / name
        facts = {"name": path.name, "sha256": sha256_file(path), **_media(name)}
        size = {"contentSize": str(path.stat().st_size)}
        return self.crate.add_file(dest_path=name, properties={**facts, **size, "@type": kinds})

    def record(self, job: Job) -> Entity:
        """Add the record of a job."""
        path = self.run / job.record
        name = path.relative_to(self.crate_dir).as_posix()
        facts = {"name": f"record of {job.rule}", "sha256": sha256_file(path), **_media(name)}
        return self.crate.add_file(dest_path=name, properties=facts)

    def entity(self, item: Item) -> Entity:
        """Return what stands for a file or folder, added when it is first asked for."""
        key = (item.where, item.sha256)
        if key not in self._items:
            self._items[key] = self._add_item(item)
        return self._items[key]

    def kind(self, item: Item) -> str:
        """Return the type of a file or folder, in the crate's words."""
        return "File" if self._manifest(item) is None else "Dataset"

    def _manifest(self, item: Item) -> dict[str, str] | None:
        """Return what is in a folder; readers' records leave that to its maker's."""
        written = self.ledger.output(item.where)
        return item.files if item.files is not None or written is None else written.files

    def _add_item(self, item: Item) -> Entity:
        manifest = self._manifest(item)
        identifier = self._identifier(item, is_folder=manifest is not None)
        facts = {"name": Path(item.path).name, "sha256": item.sha256}
        if manifest is None:
            facts |= {"contentSize": str(item.size), **_media(item.path)}
            return self._add_file(identifier, facts)
        folder = self._add_folder(identifier, facts)
        folder["hasPart"] = [
            self._add_member(identifier, name, digest) for name, digest in sorted(manifest.items())
        ]
        return folder

    def _add_file(self, identifier: str, facts: dict[str, Any]) -> Entity:
        if _is_address(identifier):
            return self.crate.add_file(identifier, properties=facts)
        return self.crate.add_file(dest_path=identifier, properties=facts)

    def _add_folder(self, identifier: str, facts: dict[str, Any]) -> Entity:
        if _is_address(identifier):
            return self.crate.add_dataset(identifier, properties=facts)
        return self.crate.add_dataset(dest_path=identifier, properties=facts)

    def _add_member(self, folder: str, name: str, digest: str) -> Entity:
        identifier = hash_address(digest) if _is_address(folder) else f"{folder}/{name}"
        return self._add_file(
            identifier, {"name": Path(name).name, "sha256": digest, **_media(name)}
        )

    def _identifier(self, item: Item, *, is_folder: bool) -> str:
        """Return a path relative to the crate, or what only its hash names."""
        place, path = item.where
        written = self.ledger.output(item.where)
        is_current = written is None or written.sha256 == item.sha256
        if place == "run" and is_current and (self.run / path).exists():
            return _relative(self.run / path, self.crate_dir)
        return hash_address(item.sha256, is_folder=is_folder)


def hash_address(sha256: str, *, is_folder: bool = False) -> str:
    """Return the address of a file (RFC 6920) or folder (ARCP) that only its hash names."""
    digest = urlsafe_b64encode(bytes.fromhex(sha256)).decode().rstrip("=")
    return f"arcp://ni,sha-256;{digest}/" if is_folder else f"ni:///sha-256;{digest}"


def _is_address(identifier: str) -> bool:
    return identifier.startswith(("ni:", "arcp:"))


def _relative(path: Path, folder: Path) -> str:
    up = 0
    while not path.is_relative_to(folder):
        folder, up = folder.parent, up + 1
    return "../" * up + path.relative_to(folder).as_posix()


def _media(path: str) -> dict[str, str]:
    suffix = Path(path).suffix.lower()
    known = MEDIA_TYPES.get(suffix) or guess_type(path)[0]
    return {"encodingFormat": known or "application/octet-stream"}
