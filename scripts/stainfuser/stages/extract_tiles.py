"""Cut tissue tiles of one slide, or of the images of a set, at one resolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import SlideError
from stainfuser.files import read_json, sha256_file
from stainfuser.io.image_sets import open_images
from stainfuser.io.masks import read_mask, read_mask_atlas
from stainfuser.io.regions import RegionReader
from stainfuser.io.slides import CorruptRegionError, SlideReader
from stainfuser.io.tile_store import TileWriter, open_tile_writer
from stainfuser.logs import LOGGER, progress
from stainfuser.seeds import generator
from stainfuser.stain.tile_grid import grid_corners, tissue_of_squares
from stainfuser.stamps import make_stamp

RgbImage = NDArray[np.uint8]

_AGAIN = "copy or download the slide again"


@dataclass(frozen=True)
class TilePlace:
    """A rectangle in level-0 px; `image` counts the images of a set."""

    x_px: int
    y_px: int
    width_px: float
    height_px: float
    image: int = 0


def extract_tiles(
    *,
    slide: str,
    slide_path: str | Path,
    json_path: str | Path,
    mask_path: str | Path,
    tiles_path: str | Path,
    seed: int,
    tile_px: int,
    mpp: float,
    min_tissue_fraction: float,
    max_per_slide: int,
    encoding: str,
    jpeg_quality: int,
) -> None:
    """Write tissue tiles of a grid, at most `max_per_slide` of them drawn at random.

    Tiles lie in reading order. A tile that cannot be decoded is left out with a warning. A slide
    without a tile of enough tissue gives a store without rows.

    Parameters
    ----------
    slide
        Name of the entry; part of the seed.
    slide_path
        The slide file, an image, or a folder of images.
    json_path, mask_path
        What `probe_slide` and `mask_tissue` wrote.
    tiles_path
        HDF5, see `io.tile_store`.
    seed
        Seed of the draw.
    tile_px, mpp
        Side and resolution (um per px) of the tiles. Images of unknown resolution are taken to
        be at `mpp`; those smaller than a tile, but not than half of one, are mirrored to its size.
    min_tissue_fraction
        Least fraction of a tile that is tissue.
    max_per_slide
        Most tiles of the entry.
    encoding, jpeg_quality
        "raw" or "jpeg", and the quality of the latter.

    Raises
    ------
    SlideError
        The record's verdict is not "ok", every tile is damaged, or all images are too small.
    """
    record = read_json(json_path)
    if record["verdict"] != "ok":
        raise SlideError(slide, record["verdict"], record["reason"], record["remedy"])
    side_px = tile_px * mpp / (record["mpp"] or mpp)
    places = _find_places(record, Path(mask_path), side_px, min_tissue_fraction)
    chosen = _draw(places, max_per_slide, seed, slide)
    config = {
        "tile_px": tile_px,
        "mpp": mpp,
        "min_tissue_fraction": min_tissue_fraction,
        "max_per_slide": max_per_slide,
        "encoding": encoding,
        "jpeg_quality": jpeg_quality,
        "seed": seed,
    }
    hashes = {"source_sha256": record["sha256"], "mask_sha256": sha256_file(mask_path)}
    attributes = {
        **make_stamp("extract_tiles", config, **hashes),
        "slide": slide,
        "mpp": mpp,
        "level0_tile_px": round(side_px),
    }
    writer_options = {
        "tile_px": tile_px,
        "encoding": encoding,
        "jpeg_quality": jpeg_quality,
        "image_names": [image["name"] for image in record["images"]],
    }
    with open_tile_writer(tiles_path, attributes=attributes, **writer_options) as writer:
        _write_tiles(writer, chosen, _open_sources(Path(slide_path), record, chosen, mpp), mpp)
        if chosen and not len(writer):
            raise SlideError(slide, "corrupt", "none of its tiles can be decoded", _AGAIN)
        LOGGER.info("%s: %d of %d tissue tiles", slide, len(writer), len(places))


def _find_places(
    record: dict[str, Any], mask_path: Path, side_px: float, min_tissue_fraction: float
) -> list[TilePlace]:
    """Return all squares of the grid, or of the images' grids, that hold enough tissue."""
    if record["kind"] != "images":
        size_px = (record["width_px"], record["height_px"])
        return _tissue_places(size_px, read_mask(mask_path), side_px, min_tissue_fraction)
    masks = read_mask_atlas(mask_path)
    places, too_small = [], []
    for number, image in enumerate(record["images"]):
        size_px = (image["width_px"], image["height_px"])
        if min(size_px) < side_px / 2:
            too_small.append(image["name"])
        mask = masks[image["name"]]
        places += _tissue_places(size_px, mask, side_px, min_tissue_fraction, number)
    if too_small:
        LOGGER.warning("%d images are smaller than half a tile: left out", len(too_small))
    if len(too_small) == len(record["images"]):
        wrong = f"all its images are smaller than half a tile ({side_px / 2:g} px)"
        raise SlideError(record["slide"], "too_small", wrong, "lower the key tiles: tile_px")
    return places


def _tissue_places(
    size_px: tuple[int, int],
    mask: NDArray[np.bool_],
    side_px: float,
    min_tissue_fraction: float,
    image: int = 0,
) -> list[TilePlace]:
    corners = grid_corners(size_px, side_px)
    if not len(corners):
        return []
    enough = tissue_of_squares(mask, size_px, corners, side_px) >= min_tissue_fraction
    return [
        TilePlace(x_px, y_px, min(side_px, size_px[0]), min(side_px, size_px[1]), image)
        for x_px, y_px in corners[enough].tolist()
    ]


def _draw(places: list[TilePlace], most: int, seed: int, slide: str) -> list[TilePlace]:
    if len(places) <= most:
        return places
    drawn = generator(seed, "extract_tiles", slide).choice(len(places), most, replace=False)
    return [places[index] for index in sorted(drawn.tolist())]


def _open_sources(
    path: Path, record: dict[str, Any], chosen: list[TilePlace], mpp: float
) -> Iterator[tuple[int, RegionReader]]:
    """Yield (image number, reader) of what the chosen tiles are cut from; a slide is number 0."""
    own_mpp = record["mpp"] or mpp
    if record["kind"] == "images":
        used = sorted({place.image for place in chosen})
        names = [record["images"][number]["name"] for number in used]
        readers = (reader for _, reader in open_images(path, names, own_mpp))
        yield from zip(used, readers, strict=True)
    else:
        with SlideReader(path, own_mpp) as reader:
            yield 0, reader


def _write_tiles(
    writer: TileWriter,
    chosen: list[TilePlace],
    sources: Iterator[tuple[int, RegionReader]],
    mpp: float,
) -> None:
    by_image: dict[int, list[TilePlace]] = {}
    for place in chosen:
        by_image.setdefault(place.image, []).append(place)
    work = ((reader, place) for number, reader in sources for place in by_image.get(number, []))
    for reader, place in progress(work, "tiles", total=len(chosen)):
        try:
            tile = _read_tile(reader, place, writer.tile_px, mpp)
        except CorruptRegionError as error:
            LOGGER.warning("tile left out: %s", error)
            continue
        writer.append(tile, place.x_px, place.y_px, place.image)


def _read_tile(reader: RegionReader, place: TilePlace, tile_px: int, mpp: float) -> RgbImage:
    """Read one square, mirrored over the edge of a source that is smaller than it."""
    scale = reader.mpp / mpp
    width = min(tile_px, round(place.width_px * scale))
    height = min(tile_px, round(place.height_px * scale))
    tile = reader.read_at_mpp(place.x_px, place.y_px, (width, height), mpp)
    return np.pad(tile, ((0, tile_px - height), (0, tile_px - width), (0, 0)), mode="reflect")
