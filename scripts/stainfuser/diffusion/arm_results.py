"""Apply an arm to tiles so that one bad tile costs no other, and count what that took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.arms import ArmNotAvailableError, Normalize
from stainfuser.diffusion.loading import fingerprint_model
from stainfuser.errors import StainFuserError
from stainfuser.evaluation_arms import arm_named
from stainfuser.files import sha256_file
from stainfuser.io.evaluation_store import ArmResult, EvaluationSample
from stainfuser.io.slides import SlideReader
from stainfuser.logs import LOGGER
from stainfuser.stamps import make_stamp

Images = NDArray[np.uint8]
# What may go wrong within an arm without being a defect of the evaluation.
FAILURES = (StainFuserError, RuntimeError, ValueError, OSError, MemoryError, ImportError)
UNCHANGED_NOTE = "given back as it came"
# Keys of the section `pairs` that the nst arms use, besides the file of weights.
STYLE_KEYS = (
    "feature_network",
    "allow_random_weights",
    "optimizer",
    "iterations",
    "content_weight",
    "style_weight",
)


@dataclass
class Usage:
    """What an arm took: seconds in its own code, pixels it made, and tiles that failed."""

    seconds: float = 0.0
    pixels: int = 0
    tiles: int = 0
    failed: int = 0
    first_failure: str = ""

    def count(self, result: ArmResult) -> None:
        """Add the tiles of one slide."""
        self.tiles += len(result.is_made)
        self.failed += int((~result.is_made).sum())
        made = zip(result.notes, result.is_made, strict=True)
        failures = (note for note, is_made in made if not is_made)
        self.first_failure = self.first_failure or next(failures, "")

    @property
    def has_failed(self) -> bool:
        """Tell whether there were tiles, and none of them was made."""
        return bool(self.tiles) and self.failed == self.tiles

    def to_record(self) -> dict[str, Any]:
        """Return the numbers for the arm's JSON."""
        megapixels = self.pixels / 1e6
        return {
            "tiles": self.tiles,
            "failed_tiles": self.failed,
            "megapixels": megapixels,
            "seconds": self.seconds,
            "seconds_per_megapixel": (
                self.seconds / megapixels if megapixels and not self.has_failed else None
            ),
        }


def apply_to_tiles(normalize: Normalize, tiles: Images, usage: Usage) -> ArmResult:
    """Return all tiles at once; where that fails, one by one, so that one costs no other.

    Tiles that come back as they were get a note: as a rule the arm has no answer for them.
    """
    started = time.perf_counter()
    try:
        result = complete(_checked(normalize(tiles), tiles))
    except FAILURES:
        result = _one_by_one(normalize, tiles)
    usage.seconds += time.perf_counter() - started
    usage.pixels += int(np.prod(tiles.shape[:3]))
    if normalize is np.copy:
        return result
    same = (result.image == tiles).all(axis=(1, 2, 3)) & result.is_made
    notes = [UNCHANGED_NOTE if s else n for s, n in zip(same, result.notes, strict=True)]
    return ArmResult(result.image, result.is_made, notes)


def read_delivered(path: Path, sample: EvaluationSample) -> ArmResult:
    """Return the sample's places in a normalised slide; damaged ones get a note and no image."""
    images, notes = np.zeros_like(sample.source), [""] * len(sample)
    side_px, mpp = images.shape[1], float(sample.attrs["mpp"])
    try:
        with SlideReader(path) as reader:
            for index, (x, y) in enumerate(sample.coords.tolist()):
                try:
                    images[index] = reader.read_at_mpp(x, y, side_px, mpp)
                except (StainFuserError, OSError) as error:
                    notes[index] = sentence(error)
    except (StainFuserError, OSError) as error:
        notes = [sentence(error)] * len(sample)
    return ArmResult(images, np.array([not note for note in notes], bool), notes)


def complete(images: Images) -> ArmResult:
    """Return a result without a fault."""
    return ArmResult(images, np.ones(len(images), bool), [""] * len(images))


def sentence(error: BaseException) -> str:
    """Return what an error says in one line."""
    return " ".join(str(error).split()) or type(error).__name__


@dataclass
class Outcome:
    """What became of an arm: "done", "failed" or "not run", and a sentence unless it is done."""

    state: str = "done"
    failure: str = ""


@contextlib.contextmanager
def outcome_of(arm: str) -> Iterator[Outcome]:
    """Yield the arm's outcome; what goes wrong in the block is said in it and not raised."""
    outcome = Outcome()
    try:
        yield outcome
    except ArmNotAvailableError as error:
        outcome.state, outcome.failure = "not run", sentence(error)
    except FAILURES as error:
        outcome.state, outcome.failure = "failed", sentence(error)
    if outcome.failure:
        LOGGER.warning("%s, %s: %s", arm, outcome.state, outcome.failure)


def style_arguments(style_options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `build_arm` takes of the section `pairs`."""
    return {
        "feature_weights": style_options.get("feature_weights"),
        "style_options": {key: style_options[key] for key in STYLE_KEYS if key in style_options},
    }


def stamp_arm(
    rule: str,
    arm: str,
    seed: int,
    slow_arm_tiles: int,
    style_options: Mapping[str, Any],
    models: Mapping[str, str | Path | None],
    baseline_dirs: Sequence[str | Path],
) -> dict[str, str]:
    """Return the stamp: settings and models that the arm depends on, and no others.

    `rule` makes the product; `models` maps "model" and "trained" to folders, or None.
    """
    needs = arm_named(arm).needs
    config: dict[str, Any] = {"arm": arm, "seed": seed}
    if arm_named(arm).is_slow:
        config["slow_arm_tiles"] = slow_arm_tiles
    hashes = {}
    if "weights" in needs:
        config |= {key: style_options.get(key) for key in STYLE_KEYS}
        weights = style_options.get("feature_weights")
        if weights and Path(weights).is_file():
            hashes["weights_sha256"] = sha256_file(weights)
    folders = {name: folder for name, folder in models.items() if folder and name in needs}
    folders |= {f"baseline_{Path(path).parent.name}": path for path in baseline_dirs}
    hashes |= {f"{name}_sha256": fingerprint_model(folder) for name, folder in folders.items()}
    return make_stamp(rule, config, **hashes)


def _one_by_one(normalize: Normalize, tiles: Images) -> ArmResult:
    images, notes = np.zeros_like(tiles), [""] * len(tiles)
    for index in range(len(tiles)):
        tile = tiles[index : index + 1]
        try:
            images[index] = _checked(normalize(tile), tile)[0]
        except FAILURES as error:
            LOGGER.warning("%s", error)
            notes[index] = sentence(error)
    return ArmResult(images, np.array([not note for note in notes], bool), notes)


def _checked(images: Any, tiles: Images) -> Images:
    images = np.asarray(images)
    if images.shape != tiles.shape or images.dtype != np.uint8:
        found, wanted = (f"{a.shape} {a.dtype}" for a in (images, tiles))
        raise ValueError(f"it returned {found} where {wanted} was expected")
    return images
