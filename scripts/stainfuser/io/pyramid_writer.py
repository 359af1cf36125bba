"""Write a whole slide block by block: an Aperio-style BigTIFF that survives a kill.

The file is append-only. Every finished block is noted in a journal in a work folder; a writer that
is started again with the same key goes on behind the last noted block and ends in the same bytes.
The offset of the first directory is written last, so that an unfinished file opens nowhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from stainfuser.files import sha256_content
from stainfuser.io.bigtiff import (
    HEADER_BYTES,
    Tag,
    encode_directories,
    encode_header,
    encode_jpeg,
)
from stainfuser.io.journal import Journal, Record
from stainfuser.io.outputs import check_writable, explain_full_disk, move_into_place
from stainfuser.io.raw_level import RawLevel
from stainfuser.io.slide_check import verify_slide
from stainfuser.io.slide_layout import (
    SOFTWARE,
    STEP,
    Block,
    IsEarly,
    Place,
    SlideSpec,
    plan_blocks,
    reduce_by_step,
    stripped_directory,
    tiled_directory,
)
from stainfuser.io.tile_encoder import TileEncoder, cut_tiles

THUMBNAIL_PX = 1024
ROWS_PER_STRIP = 16
# Between two times that work is forced to disk: the end of the machine costs at most this much. The
# end of the process costs the block it was writing.
SYNC_EVERY_S = 2.0


class PyramidWriter:
    """Write one slide in blocks, resumably; use as a context manager.

    ``for block in writer.remaining(): writer.write(block, rgb)``, then ``writer.finish()``.

    Parameters
    ----------
    path
        The slide's final name; it appears only when `finish` has verified the file.
    work_dir
        Folder for the unfinished file and its journal, best on the same file system as `path`.
        It is kept when the writer is killed or fails, and removed by `finish`.
    spec
        Size, resolution and encoding.
    key
        Hash of everything the pixels depend on: work under another key is thrown away.
    threads
        Encoding threads; they do not change a byte.
    is_early
        Says of a place (x_px, y_px, width_px, height_px) whether it is to be written before others:
        what is ready while the rest is still being planned. It has to follow from the key.

    Raises
    ------
    InputError
        The folder of `path` or the work folder cannot be written to, or the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        work_dir: str | Path,
        spec: SlideSpec,
        *,
        key: str,
        threads: int = 1,
        is_early: IsEarly | None = None,
    ) -> None:
        self.path, self.work_dir, self.spec = Path(path), Path(work_dir), spec
        self.blocks = plan_blocks(spec.width_px, spec.height_px, spec.block_px, is_early)
        self._sizes_px = spec.level_sizes_px()
        self._direct_levels = _count_direct_levels(spec)
        self._tiles: list[dict[int, Place]] = [{} for _ in self._sizes_px]
        self._shared: dict[str, Place] = {}
        self._notes: list[Any] = []
        self._end, self._crc = HEADER_BYTES, 0
        check_writable(self.path.parent)
        check_writable(self.work_dir)
        self._open(f"{key} {_layout_key(spec, self.blocks)}")
        self._encoder = TileEncoder(spec.quality, threads)
        self._synced_s = time.monotonic()

    @property
    def notes(self) -> list[Any]:
        """The `note` of every block written so far, in order; a killed run's are among them."""
        return list(self._notes)

    @property
    def blocks_done(self) -> int:
        """Number of blocks already written."""
        return len(self._notes)

    def remaining(self) -> list[Block]:
        """Return the blocks that are still to be written, in order."""
        return self.blocks[self.blocks_done :]

    def write(self, block: Block, rgb: NDArray[np.uint8], note: Any = None) -> None:
        """Append one block: (height_px, width_px, 3) uint8 RGB, or 4 channels with a filler.

        Blocks have to come in the order of `remaining`; `note` is JSON-able. Four channels give the
        same bytes sooner.
        """
        if block.index != self.blocks_done:
            raise ValueError(f"block {block.index} written where {self.blocks_done} was expected")
        sizes = [(block.height_px, block.width_px, channels) for channels in (3, 4)]
        if rgb.shape not in sizes or rgb.dtype != np.uint8:
            raise ValueError(f"block {block.index} has shape {rgb.shape}, type {rgb.dtype}")
        known, self._crc = set(self._shared), 0
        with explain_full_disk(self.work_dir):
            tiles = self._append_block(block.x_px, block.y_px, rgb)
            shared = {name: self._shared[name] for name in self._shared if name not in known}
            record = {"end": self._end, "tiles": tiles, "shared": shared, "note": note}
            checksums = [self._crc, self._raw_checksum(block)]
            self._journal.add({**record, "checksums": checksums})
            self._notes.append(note)
            if time.monotonic() - self._synced_s > SYNC_EVERY_S:
                self.sync()

    def sync(self) -> None:
        """Force all blocks written so far to disk, and note in the journal that they are there."""
        os.fsync(self._file)
        self._raw.sync()
        self._journal.add({"synced": self.blocks_done})
        self._journal.sync()
        self._synced_s = time.monotonic()

    def finish(self) -> None:
        """Write the small levels, the thumbnail and the directories; verify; rename."""
        if self.remaining():
            raise ValueError(f"{len(self.remaining())} blocks are missing")
        with explain_full_disk(self.work_dir):
            self.sync()
            smallest = self._append_small_levels()
            directories = self._describe(smallest)
            start = self._end
            self._append(encode_directories(directories, start))
            os.fsync(self._file)
            os.pwrite(self._file, encode_header(start), 0)
            os.fsync(self._file)
            verify_slide(self._partial, self.spec)
            move_into_place(self._partial, self.path)
        self.close()
        shutil.rmtree(self.work_dir)

    def close(self) -> None:
        """Stop; the next writer goes on behind the last block."""
        if self._file < 0:
            return
        self._encoder.close()
        self._journal.close()
        self._raw.close()
        os.close(self._file)
        self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _open(self, key: str) -> None:
        """Open the work files; take over what the journal vouches for and cut off the rest."""
        self._partial = self.work_dir / "slide.partial"
        raw_path = self._raw_path(self._direct_levels)
        size = self._partial.stat().st_size if self._partial.exists() and raw_path.exists() else 0
        self._journal = Journal(self.work_dir / "journal", key)
        self._file = os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666)
        self._raw = RawLevel(raw_path, *self._sizes_px[self._direct_levels])
        self._take_over(size)
        os.ftruncate(self._file, self._end)
        os.pwrite(self._file, encode_header(0), 0)

    def _take_over(self, size: int) -> None:
        """Go through the journal; `size` is that of the unfinished file.

        Blocks noted before the last sync are on disk, whatever happened. Those after it are there
        if only the process died; after the end of the machine they have to be looked at.
        """
        records = self._journal.records
        synced = max((i for i, record in enumerate(records) if "synced" in record), default=-1)
        ends = [record["end"] for record in records[: synced + 1] if "end" in record]
        if max(ends, default=0) > size:
            self._journal.keep(0)  # somebody deleted or cut the work files
        for number, record in enumerate(list(self._journal.records)):
            if "synced" in record:
                continue
            if number > synced and not self._is_intact(record):
                self._journal.keep(number)
                return
            for level, tiles in enumerate(record["tiles"]):
                self._tiles[level].update({i: (at, count) for i, at, count in tiles})
            self._shared.update({name: tuple(place) for name, place in record["shared"].items()})
            self._notes.append(record["note"])
            self._end = record["end"]

    def _is_intact(self, record: Record) -> bool:
        """Return whether the files hold what the record of the next block says."""
        content = os.pread(self._file, max(0, record["end"] - self._end), self._end)
        block = self.blocks[self.blocks_done]
        return record["checksums"] == [zlib.crc32(content), self._raw_checksum(block)]

    def _raw_checksum(self, block: Block) -> int:
        """Return the checksum of a block's part of the level that is kept raw."""
        shrink = STEP**self._direct_levels
        sides = (block.x_px, block.y_px, block.width_px, block.height_px)
        return self._raw.checksum(*(side // shrink for side in sides))

    def _raw_path(self, level: int) -> Path:
        return self.work_dir / f"level{level}.raw"

    def _append(self, content: bytes) -> Place:
        place = (self._end, len(content))
        self._crc = zlib.crc32(content, self._crc)
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, self._end)
            view, self._end = view[written:], self._end + written
        return place

    def _append_block(
        self, x_px: int, y_px: int, rgb: NDArray[np.uint8]
    ) -> list[list[tuple[int, int, int]]]:
        """Append a block to every level; return number, offset, count of its tiles per level."""
        tiles = []
        for level in range(self._direct_levels):
            tiles.append(self._append_region(level, x_px, y_px, rgb))
            rgb, x_px, y_px = reduce_by_step(rgb), x_px // STEP, y_px // STEP
        self._raw.put(x_px, y_px, rgb[..., :3])
        return tiles

    def _append_region(
        self, level: int, x_px: int, y_px: int, rgb: NDArray[np.uint8]
    ) -> list[tuple[int, int, int]]:
        """Append the tiles of a region whose corner lies on the tile grid of `level`."""
        side = self.spec.tile_px
        width_px, height_px = self._sizes_px[level]
        rgb = rgb[: max(0, height_px - y_px), : max(0, width_px - x_px)]
        if not rgb.size:
            return []
        tiles, columns = cut_tiles(rgb, side)
        across = -(-width_px // side)
        first = (y_px // side) * across + x_px // side
        numbers = [first + i // columns * across + i % columns for i in range(len(tiles))]
        places = self._append_tiles(tiles)
        self._tiles[level].update(zip(numbers, places, strict=True))
        return [(number, *place) for number, place in zip(numbers, places, strict=True)]

    def _append_tiles(self, tiles: list[NDArray[np.uint8]]) -> list[Place]:
        """Append tiles in order; all tiles of one and the same colour share one place."""
        places = []
        for colour, content in self._encoder.encode(tiles, self._shared):
            place = self._shared.get(colour) if colour else None
            if place is None:
                place = self._append(content)
                if colour:
                    self._shared[colour] = place
            places.append(place)
        return places

    def _append_small_levels(self) -> NDArray[np.uint8]:
        """Append the levels kept raw, band by band; return the smallest level."""
        side, raw, last = self.spec.tile_px, self._raw, len(self._sizes_px) - 1
        for level in range(self._direct_levels, last + 1):
            following = None
            if level < last:
                following = RawLevel(self._raw_path(level + 1), *self._sizes_px[level + 1])
            for y_px in range(0, raw.height_px, side):
                band = raw.rows(y_px, y_px + side)
                self._append_region(level, 0, y_px, band)
                if following:
                    following.put(0, y_px // STEP, reduce_by_step(band))
            if following:
                raw.close()
                self._raw = raw = following
        return raw.rows(0, raw.height_px)

    def _describe(self, smallest: NDArray[np.uint8]) -> list[list[Tag]]:
        """Append the thumbnail's strips and return all directories."""
        levels = []
        for level, (size_px, tiles) in enumerate(zip(self._sizes_px, self._tiles, strict=True)):
            places = [place for _, place in sorted(tiles.items())]
            number = level and level + 1  # directory 1 is the thumbnail
            levels.append(tiled_directory(self.spec, number, size_px, places))
        picture = Image.fromarray(smallest)
        picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
        rgb = np.asarray(picture)
        strips = [
            self._append(encode_jpeg(rgb[y : y + ROWS_PER_STRIP], self.spec.quality))
            for y in range(0, len(rgb), ROWS_PER_STRIP)
        ]
        thumbnail = stripped_directory(self.spec, picture.size, ROWS_PER_STRIP, strips)
        return [levels[0], thumbnail, *levels[1:]]


def write_slide(
    path: str | Path,
    rgb: NDArray[np.uint8],
    *,
    mpp: float,
    objective_power: float | None,
    quality: int = 90,
    tile_px: int = 256,
) -> None:
    """Write a picture in memory, (H, W, 3) uint8 RGB, as a slide that OpenSlide opens.

    `mpp` is in um per px. The file appears under its final name only when it is complete.
    """
    height_px, width_px = rgb.shape[:2]
    block_px = tile_px * max(1, 2048 // tile_px)
    spec = SlideSpec(width_px, height_px, mpp, objective_power, quality, tile_px, block_px)
    check_writable(Path(path).parent)
    with (
        tempfile.TemporaryDirectory(prefix=".slide-", dir=Path(path).parent) as folder,
        PyramidWriter(path, Path(folder) / "work", spec, key="", threads=2) as writer,
    ):
        for block in writer.remaining():
            rows = rgb[block.y_px : block.y_px + block.height_px]
            writer.write(block, rows[:, block.x_px : block.x_px + block.width_px])
        writer.finish()


def _layout_key(spec: SlideSpec, blocks: list[Block]) -> str:
    order = [(block.x_px, block.y_px) for block in blocks]
    return sha256_content({**asdict(spec), "software": SOFTWARE, "order": order})


def _count_direct_levels(spec: SlideSpec) -> int:
    """Return how many levels take whole tiles from every block; never the smallest level."""
    side_px, levels = spec.block_px, 0
    while levels < len(spec.level_sizes_px()) - 1 and side_px % spec.tile_px == 0:
        levels, side_px = levels + 1, side_px // STEP
    return levels
