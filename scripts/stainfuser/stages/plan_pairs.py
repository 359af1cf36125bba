"""Decide which source is stylised with which target, and lay the images of both together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stainfuser.errors import InputError
from stainfuser.files import sha256_file, write_text
from stainfuser.io.image_store import ImagePlace, write_image_store
from stainfuser.io.images import read_image
from stainfuser.io.tile_store import TileReader
from stainfuser.logs import LOGGER, progress
from stainfuser.seeds import generator
from stainfuser.stain.optical_density import rgb_to_od
from stainfuser.stain.recolouring import Recolouring, draw_recolouring
from stainfuser.stain.stain_directions import stain_directions
from stainfuser.stain.target_tiles import cut_tile
from stainfuser.stain.tissue_features import TISSUE_FEATURES
from stainfuser.stamps import make_stamp

TARGET_PREFIX = "target:"
# What a feature counts in the likeness of two compositions; all others count 1.
COMPOSITION_WEIGHTS = {"nuclear_fraction": 3.0, "background_fraction": 3.0}
# Tiles of a slide that its stain directions are estimated on.
DIRECTION_TILES = 8


def plan_pairs(
    *,
    assignments_path: str | Path,
    tiles_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    plan_path: str | Path,
    sources_path: str | Path,
    targets_path: str | Path,
    seed: int,
    method: str,
    sources_per_target: int,
) -> None:
    """Pair each target with the sources of most similar composition.

    Statistics of whole images carry composition: a target much denser in nuclei would have stroma
    painted purple. Likeness is the distance of standardised tissue features, nuclear density and
    background counting three times.

    With `method` "recolour" the pairs are exact: each target has a recolouring T drawn for it, the
    target image is T(tile), and its sources are tiles of the *same slide*, whose truth is T(source)
    (see `stain/recolouring.py`). T is kept in the dataset `recolouring` of the targets. Tiles of
    target images have no slide and are left out.

    Parameters
    ----------
    method
        Of `transfer_style`: "recolour", or any other.
    sources_per_target
        Sources of each target; all of them where there are fewer.

    Raises
    ------
    InputError
        No source or no target is left, or the assignments are of other tiles.
    """
    table = _read_assignments(assignments_path)
    sources, targets = table[table.role_source], table[table.role_target]
    exact = method == "recolour"
    if exact:
        targets = targets[targets.slide.isin(sources.slide)]
    pairs = _most_alike(sources, targets, sources_per_target, exact, seed)
    targets = targets[[len(chosen) > 0 for chosen in pairs]]
    pairs = [chosen for chosen in pairs if len(chosen)]
    if not pairs:
        remedy = "raise clusters.sources, or set pairs.method to class_guided"
        raise InputError(assignments_path, "no target has a source to be paired with", remedy)
    used = np.unique(np.concatenate(pairs))
    sources, pairs = sources.iloc[used], [np.searchsorted(used, chosen) for chosen in pairs]
    options = {"seed": seed, "exact": exact, "sources_per_target": sources_per_target}
    stamp = make_stamp("plan_pairs", options, assignments_sha256=sha256_file(assignments_path))
    with ExitStack() as stack:
        tiles = _TileFinder(stack, tiles_paths, target_paths)
        attributes = {**stamp, "mpp": tiles.mpp}
        source_ids = [f"s{index:04d}" for index in range(len(sources))]
        target_ids = [f"t{index:03d}" for index in range(len(targets))]
        write_image_store(
            sources_path, tiles.read(sources, "sources"), source_ids, _places(sources), attributes
        )
        looks = _draw_recolourings(tiles, targets, target_ids, seed) if exact else None
        write_image_store(
            targets_path,
            _recoloured(tiles.read(targets, "targets"), looks),
            target_ids,
            _places(targets),
            attributes,
            {} if looks is None else {"recolouring": np.stack([t.to_vector() for t in looks])},
        )
    _write_plan(plan_path, pairs, source_ids, target_ids)
    LOGGER.info(
        "%d sources, %d targets, %d pairs", len(sources), len(targets), sum(map(len, pairs))
    )


def _read_assignments(path: str | Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path, dtype={"slide": str}, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(path, f"not a readable table ({error})", "run cluster_stains") from None


def _most_alike(
    sources: pd.DataFrame, targets: pd.DataFrame, count: int, same_slide: bool, seed: int
) -> list[NDArray[np.int64]]:
    """Return for each target up to `count` rows of `sources`, never the target's own tile."""
    columns = list(TISSUE_FEATURES)
    features = [table[columns].to_numpy(np.float64) for table in (sources, targets)]
    together = np.concatenate(features)
    spread = together.std(axis=0) if len(together) else np.ones(len(columns))
    weights = np.sqrt([COMPOSITION_WEIGHTS.get(name, 1.0) for name in columns])
    scale = weights / np.where(spread > 1e-9, spread, 1.0)
    places = sources[["slide", "row"]].to_numpy()
    chosen = []
    for place, of_target in zip(targets[["slide", "row"]].to_numpy(), features[1], strict=True):
        distance = np.square((features[0] - of_target) * scale).sum(axis=1)
        is_slide, is_row = (places == place).T if len(places) else np.zeros((2, 0), bool)
        distance[(is_slide & is_row) | (same_slide & ~is_slide)] = np.inf
        # Equal distances are decided by a seeded draw, not by the order of slides.
        ties = generator(seed, "ties", *place).permutation(len(distance))
        order = np.lexsort((ties, distance))
        chosen.append(np.sort(order[np.isfinite(distance[order])][:count]))
    return chosen


class _TileFinder:
    """Images of table rows, from tile stores or target images; files stay open meanwhile."""

    def __init__(
        self,
        stack: ExitStack,
        tiles_paths: Sequence[str | Path],
        target_paths: Sequence[str | Path],
    ) -> None:
        opened = [stack.enter_context(TileReader(path)) for path in tiles_paths]
        self._readers = {str(reader.attrs["slide"]): reader for reader in opened}
        self._images = {TARGET_PREFIX + Path(path).stem: Path(path) for path in target_paths}
        if not opened:
            raise InputError("tiles", "there are no tile stores", "run extract_tiles")
        self.mpp = float(opened[0].attrs["mpp"])
        self._tile_px = int(opened[0].attrs["tile_px"])

    def read(self, rows: pd.DataFrame, what: str) -> Iterator[NDArray[np.uint8]]:
        """Yield the tile of each row."""
        for row in progress(rows.itertuples(), f"copying {what}", len(rows)):
            yield self._read(str(row.slide), int(row.row), int(row.x), int(row.y))

    def slide_sample(self, slide: str) -> NDArray[np.uint8]:
        """Return some tiles of a slide, evenly spread, (n, S, S, 3)."""
        reader = self._readers[slide]
        spread = np.linspace(0, len(reader) - 1, DIRECTION_TILES).round().astype(int)
        return reader.read(np.unique(spread))

    def _read(self, slide: str, row: int, x_px: int, y_px: int) -> NDArray[np.uint8]:
        if slide in self._images:
            return cut_tile(read_image(self._images[slide]), x_px, y_px, self._tile_px)
        reader = self._readers.get(slide)
        if reader is None or row >= len(reader):
            wrong = f"the assignments name tile {row} of {slide}, which is not there"
            raise InputError("tiles", wrong, "run cluster_stains again")
        return reader.images[row]


def _draw_recolourings(
    tiles: _TileFinder, targets: pd.DataFrame, ids: Sequence[str], seed: int
) -> list[Recolouring]:
    """Draw one recolouring per target, seeded by its id and the slide's own stain directions."""
    directions = {
        slide: stain_directions(rgb_to_od(tiles.slide_sample(slide)[:, ::4, ::4]))
        for slide in targets.slide.unique()
    }
    return [
        draw_recolouring(directions[slide], image, generator(seed, "recolouring", name))
        for slide, name, image in zip(
            targets.slide, ids, tiles.read(targets, "recolourings"), strict=True
        )
    ]


def _recoloured(
    images: Iterator[NDArray[np.uint8]], looks: list[Recolouring] | None
) -> Iterator[NDArray[np.uint8]]:
    if looks is None:
        return images
    return (look(image) for look, image in zip(looks, images, strict=True))


def _places(rows: pd.DataFrame) -> list[ImagePlace]:
    return [ImagePlace(str(r.slide), int(r.x), int(r.y)) for r in rows.itertuples()]


def _write_plan(
    path: str | Path,
    pairs: Sequence[NDArray[np.int64]],
    source_ids: Sequence[str],
    target_ids: Sequence[str],
) -> None:
    lines = ["source,target,shard"]
    for target, chosen in zip(target_ids, pairs, strict=True):
        lines += [f"{source_ids[index]},{target},{target}" for index in chosen]
    write_text(path, "\n".join(lines) + "\n")
