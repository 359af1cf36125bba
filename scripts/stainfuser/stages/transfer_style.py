"""Stylise the planned sources of one target; resumable, with scores and a contact sheet."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stainfuser.errors import ConfigError, InputError
from stainfuser.files import sha256_file
from stainfuser.io.image_store import ImageStore
from stainfuser.io.shards import ShardDraft, write_shard
from stainfuser.logs import LOGGER, progress
from stainfuser.pictures import contact_sheet, save_picture
from stainfuser.seeds import derive_seed
from stainfuser.stain.metrics import (
    ciede2000,
    gradient_correlation,
    sliced_wasserstein,
    style_distance,
)
from stainfuser.stain.recolouring import Recolouring
from stainfuser.stain.style import fit_style, measure_look
from stainfuser.stamps import make_stamp, settings_of

METHODS = ("class_guided", "recolour", "nst", "nst_operator")
SCORES = ("style_distance", "sliced_wasserstein", "gradient_correlation", "source_delta_e")
# Scores need no more pixels than this side gives.
SCORED_SIDE_PX = 128
# Rows between two commits where a row takes a fraction of a second.
ROWS_PER_COMMIT = 8
SHEET_ROWS, SHEET_COLUMNS = 8, 3

Image = NDArray[np.uint8]
Transfer = Callable[[Image], Image]


def transfer_style(
    *,
    pair_target: str,
    plan_path: str | Path,
    sources_path: str | Path,
    targets_path: str | Path,
    shard_path: str | Path,
    sheet_path: str | Path,
    work_dir: str | Path,
    seed: int,
    method: str,
    feature_weights: str | None,
    feature_network: str,
    allow_random_weights: bool,
    optimizer: str,
    iterations: int,
    content_weight: float,
    style_weight: float,
) -> None:
    """Write the shard of one training target: its sources in its stain, and how well that went.

    A killed job goes on after its last finished row and writes the same bytes.

    Parameters
    ----------
    pair_target
        Name of the target in the plan, e.g. "t003".
    work_dir
        Folder of unfinished rows, removed at the end.
    method
        "class_guided" (closed form), "recolour" (exact), "nst" (pixels optimised for content and
        Gram losses), "nst_operator" (a colour operator optimised for the same losses).
    feature_weights, feature_network, allow_random_weights
        nst*: file of weights, "vgg19" or "squeezenet", and whether random weights will do.
    optimizer, iterations, content_weight, style_weight
        nst*: "lbfgs" or "adam", and the weights of both losses.

    Raises
    ------
    ConfigError
        An unknown method.
    InputError
        Plan, images or feature weights that are missing or do not fit together.
    """
    options = {
        "seed": seed,
        "method": method,
        **(
            {
                "feature_network": feature_network,
                "allow_random_weights": allow_random_weights,
                "optimizer": optimizer,
                "iterations": iterations,
                "content_weight": content_weight,
                "style_weight": style_weight,
            }
            if method.startswith("nst")
            else {}
        ),
    }
    with ImageStore(sources_path) as sources, ImageStore(targets_path) as targets:
        rows = planned_sources(plan_path, pair_target, sources.ids)
        target_index = _index_of(pair_target, targets.ids, plan_path)
        target = targets[target_index]
        transfer, made_with = _make_transfer(
            method, target, _recolouring(targets, target_index), options, feature_weights, seed
        )
        inputs = {
            "sources_sha256": sources.content_sha256,
            "targets_sha256": targets.content_sha256,
            **made_with,
        }
        stamp = make_stamp("transfer_style", options, **inputs)
        draft = ShardDraft(
            work_dir, {**settings_of(stamp), "rows": rows}, len(rows), target.shape, SCORES
        )
        _fill(draft, transfer, sources, rows, target, 1 if method.startswith("nst") else None)
        write_shard(shard_path, draft, rows, {**stamp, "pair_target": pair_target})
        title = f"{pair_target}: {len(rows)} sources, {method}"
        _draw_sheet(sheet_path, title, draft, sources, rows, target)
    draft.discard()


def planned_sources(plan_path: str | Path, pair_target: str, source_ids: list[str]) -> list[int]:
    """Return the sources planned for one target, as numbers in the order of the plan."""
    number = {name: index for index, name in enumerate(source_ids)}
    with open(plan_path, encoding="utf-8", newline="") as handle:
        names = [row["source"] for row in csv.DictReader(handle) if row["target"] == pair_target]
    if not names or any(name not in number for name in names):
        wrong = f"the plan and the sources do not fit together for target {pair_target}"
        raise InputError(plan_path, wrong, "run plan_pairs again")
    return [number[name] for name in names]


def _index_of(pair_target: str, target_ids: list[str], plan_path: str | Path) -> int:
    if pair_target not in target_ids:
        raise InputError(plan_path, f"there is no target {pair_target}", "run plan_pairs again")
    return target_ids.index(pair_target)


def _recolouring(targets: ImageStore, index: int) -> Recolouring | None:
    vectors = targets.dataset("recolouring")
    return None if vectors is None else Recolouring.from_vector(vectors[index])


def _make_transfer(
    method: str,
    target: Image,
    recolouring: Recolouring | None,
    options: dict[str, object],
    feature_weights: str | None,
    seed: int,
) -> tuple[Transfer, dict[str, str]]:
    """Return the function source → stylised, and fingerprints of what it was made with."""
    if method not in METHODS:
        known = ", ".join(METHODS)
        raise ConfigError("configuration key pairs.method", f"it is {method!r}", f"use {known}")
    if (method == "recolour") != (recolouring is not None):
        wrong = f"the targets were not planned for pairs.method {method}"
        raise InputError("pairs", wrong, "run plan_pairs again")
    if recolouring is not None:
        return recolouring, {}
    if method == "class_guided":
        look = measure_look(target)
        return lambda source: fit_style(measure_look(source), look)(source), {}
    return _make_neural_transfer(method, target, options, feature_weights, seed)


def _make_neural_transfer(
    method: str,
    target: Image,
    options: dict[str, object],
    feature_weights: str | None,
    seed: int,
) -> tuple[Transfer, dict[str, str]]:
    # torch is imported for these methods alone: it takes seconds.
    import torch

    from stainfuser.nn.feature_networks import load_feature_network
    from stainfuser.nn.gram_style import GramStyle, GramStyleOptions

    # One thread: sums over threads would depend on the machine.
    torch.set_num_threads(1)
    network = load_feature_network(
        str(options["feature_network"]),
        feature_weights,
        allow_random_weights=bool(options["allow_random_weights"]),
        seed=derive_seed(seed, "feature network") % 2**32,
    )
    settings = GramStyleOptions(
        optimizer=str(options["optimizer"]),
        iterations=int(options["iterations"]),
        content_weight=float(options["content_weight"]),
        style_weight=float(options["style_weight"]),
    )
    style = GramStyle(network, target, settings)
    transfer = style.pixels if method == "nst" else style.operator
    made_with = {"weights_sha256": sha256_file(feature_weights)} if feature_weights else {}
    return transfer, made_with


def _fill(
    draft: ShardDraft,
    transfer: Transfer,
    sources: ImageStore,
    rows: list[int],
    target: Image,
    rows_per_commit: int | None,
) -> None:
    """Stylise and score the unfinished rows, committing them every few."""
    step = rows_per_commit or ROWS_PER_COMMIT
    if draft.finished:
        LOGGER.info("going on after %d of %d rows", draft.finished, len(rows))
    todo = range(draft.finished, len(rows))
    for row in progress(todo, "stylising"):
        source = sources[rows[row]]
        stylized = transfer(source)
        draft.put(row, stylized, _score(source, target, stylized))
        if (row + 1) % step == 0 or row + 1 == len(rows):
            draft.commit(row + 1)


def _score(source: Image, target: Image, stylized: Image) -> dict[str, float]:
    """Score one row: style distance by class and plain, structure and change of colour."""
    step = max(1, round(source.shape[0] / SCORED_SIDE_PX))
    small, small_target, result = (i[::step, ::step] for i in (source, target, stylized))
    return {
        "style_distance": style_distance(result, small_target, small),
        "sliced_wasserstein": sliced_wasserstein(result, small_target),
        "gradient_correlation": gradient_correlation(source, stylized),
        "source_delta_e": ciede2000(small, result),
    }


def _draw_sheet(
    path: str | Path,
    title: str,
    draft: ShardDraft,
    sources: ImageStore,
    rows: list[int],
    target: Image,
) -> None:
    """Draw up to 24 triplets, evenly spread over the shard, three beside each other."""
    count = min(len(rows), SHEET_ROWS * SHEET_COLUMNS)
    shown = np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))
    columns = min(SHEET_COLUMNS, len(shown))
    images = [
        image
        for row in shown
        for image in (sources[rows[row]], target, np.array(draft.stylized[row]))
    ]
    lines = [images[i : i + 3 * columns] for i in range(0, len(images), 3 * columns)]
    titles = ["source", "target", "stylised"] * columns
    sheet = contact_sheet(lines, title=title, column_titles=titles, cell_px=128)
    save_picture(path, sheet)
