"""Search every byte of a folder, in whatever way it is packed."""

from __future__ import annotations

import base64
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import tifffile

CODES = ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le")
_BASE64 = re.compile(rb"base64,([A-Za-z0-9+/=]{16,})")


def where_hidden(folder: Path, words: list[str]) -> list[str]:
    """Return "file: word" for every word found below a folder, case and encoding aside."""
    needles = {word: [word.lower().encode(code) for code in CODES] for word in words}
    found = []
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        layers = [name.encode(), *(layers_of(path) if path.is_file() else ())]
        for word, encoded in needles.items():
            if any(needle in layer.lower() for layer in layers for needle in encoded):
                found.append(f"{name}: {word}")
    return found


def layers_of(path: Path) -> Iterator[bytes]:
    """Return the bytes of a file, and of what is packed in it, unpacked."""
    content = path.read_bytes()
    yield from unpacked(content)
    if path.suffix == ".h5":
        yield from _texts_of_hdf5(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        yield str(table.schema.metadata).encode()
        yield table.to_pandas().to_csv().encode()
    if path.suffix in {".svs", ".tif", ".tiff"}:
        yield from _tags_of_tiff(path)


def unpacked(content: bytes) -> Iterator[bytes]:
    """Return bytes, and what zip, gzip, PNG chunks and data URIs hold in them."""
    yield content
    for match in _BASE64.finditer(content):
        yield from unpacked(base64.b64decode(match[1] + b"=" * (-len(match[1]) % 4)))
    if content[:4] == b"PK\3\4":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield from unpacked(archive.read(name))
    if content[:2] == b"\x1f\x8b":
        yield from unpacked(gzip.decompress(content))
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _chunks_of_png(content)


def _chunks_of_png(content: bytes) -> Iterator[bytes]:
    place, pixels = 8, b""
    while place + 8 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        kind, body = content[place + 4 : place + 8], content[place + 8 : place + 8 + size]
        place += size + 12
        if kind == b"IDAT":
            pixels += body
        for start in range(len(body)) if kind in (b"zTXt", b"iTXt", b"iCCP") else ():
            if body[start : start + 1] == b"\x78":
                try:
                    yield zlib.decompress(body[start:])
                except zlib.error:
                    continue
    yield zlib.decompress(pixels)


def _texts_of_hdf5(path: Path) -> Iterator[bytes]:
    found: list[bytes] = []

    def collect(name, item):
        found.append(name.encode())
        found.extend(str(value).encode() for value in item.attrs.values())
        if isinstance(item, h5py.Dataset):
            found.append(
                bytes(item[()].tobytes()) if item.dtype.kind != "O" else str(item[()]).encode()
            )

    with h5py.File(path) as file:
        found.extend(str(value).encode() for value in file.attrs.values())
        file.visititems(collect)
    yield from found


def _tags_of_tiff(path: Path) -> Iterator[bytes]:
    with tifffile.TiffFile(path) as tiff:
        for page in tiff.pages:
            for tag in page.tags.values():
                yield str(tag.value).encode()
