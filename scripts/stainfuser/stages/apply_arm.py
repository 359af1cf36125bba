"""One way to normalise on the evaluation tiles of all slides, to all their targets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.arms import ArmNotAvailableError, Normalize, build_arm
from stainfuser.diffusion.loading import fingerprint_model, load_pipeline
from stainfuser.errors import StainFuserError
from stainfuser.evaluation_arms import arm_named
from stainfuser.files import sha256_file, write_json
from stainfuser.io.evaluation_store import (
    ArmResult,
    ArmWriter,
    EvaluationSample,
    open_arm_writer,
    read_sample,
)
from stainfuser.io.images import read_image
from stainfuser.io.slides import SlideReader
from stainfuser.logs import LOGGER, progress
from stainfuser.stamps import make_stamp

Images = NDArray[np.uint8]
# What may go wrong within an arm without being a defect of the evaluation.
FAILURES = (StainFuserError, RuntimeError, ValueError, OSError, MemoryError, ImportError)
UNCHANGED_NOTE = "given back as it came"


@dataclass
class Usage:
    """What an arm took: seconds in its own code, pixels it made, and tiles that failed."""

    seconds: float = 0.0
    pixels: int = 0
    tiles: int = 0
    failed: int = 0
    first_failure: str = ""


def apply_arm(
    *,
    arm: str,
    jobs: Sequence[Sequence[str]],
    sample_paths: Sequence[str | Path],
    target_paths: Sequence[str | Path],
    normalized_paths: Sequence[str | Path],
    baseline_dirs: Sequence[str | Path],
    model_dir: str | Path | None,
    trained_dir: str | Path | None,
    images_path: str | Path,
    record_path: str | Path,
    seed: int,
    style_options: Mapping[str, Any],
    slow_arm_tiles: int,
    threads: int = 1,
    device: str | None = None,
    load_model: Callable[[str | Path, str | None], Any] = load_pipeline,
) -> None:
    """Write what an arm makes of the sampled tiles, and how long it took.

    Parameters
    ----------
    arm
        A name of `evaluation_arms.ARMS`.
    jobs
        (slide, target) of the cohort; those without a sample are left out.
    sample_paths, target_paths
        ``{slide}.h5`` of sample_evaluation_tiles; reference images, ``{target}.png``.
    normalized_paths
        ``normalized/{target}/{slide}.svs``, for the arm "delivered".
    baseline_dirs
        ``baselines/{target}/{arm}``, for the arms that were trained on this cohort.
    model_dir, trained_dir
        Models; None where the arm needs none.
    images_path
        HDF5, see `io.evaluation_store`. It depends on the inputs alone.
    record_path
        JSON: state, failure, and seconds per megapixel, the only product that holds times.
    seed, style_options
        Of initial noise; the section `pairs`, of which the nst arms use what concerns them.
    slow_arm_tiles
        Most tiles of a slide for arms that are slow.
    threads, device, load_model
        They do not change the result (up to the arithmetic of the device).

    An arm that cannot be run, or fails on all tiles, says so in both products; nothing is raised.
    A tile on which it fails gets no image and a note. Only unreadable samples raise `InputError`.
    """
    samples = {Path(path).stem: read_sample(path) for path in sample_paths}
    targets = {Path(path).stem: path for path in target_paths}
    wanted = _jobs_by_target(jobs, samples, targets)
    makers = _Makers(
        arm,
        {(path.parent.name, path.stem): path for path in map(Path, normalized_paths)},
        {
            "model_dir": model_dir,
            "trained_dir": trained_dir,
            "feature_weights": style_options.get("feature_weights"),
            "style_options": {k: v for k, v in style_options.items() if k in STYLE_KEYS},
            "seed": seed,
            "threads": threads,
            "device": device,
            "load_model": load_model,
        },
        {path.parent.name: path for path in map(Path, baseline_dirs)},
    )
    most = slow_arm_tiles if arm_named(arm).is_slow else None
    usage, state, failure, started = Usage(), "done", "", time.perf_counter()
    stamp = _stamp(arm, seed, slow_arm_tiles, style_options, model_dir, trained_dir, baseline_dirs)
    with open_arm_writer(images_path, {"arm": arm, **stamp}) as writer:
        try:
            for target, slides in wanted.items():
                _apply_to_target(makers, target, targets[target], slides, most, writer, usage)
        except ArmNotAvailableError as error:
            state, failure = "not run", str(error)
        except FAILURES as error:
            state, failure = "failed", _sentence(error)
        if usage.tiles and usage.failed == usage.tiles:
            state, failure = "failed", failure or usage.first_failure
        writer.set_attributes({"state": state, "failure": failure})
    if failure:
        LOGGER.warning("%s, %s: %s", arm, state, failure)
    write_json(record_path, _record(arm, state, failure, usage, started, threads, device))


STYLE_KEYS = (
    "feature_network",
    "allow_random_weights",
    "optimizer",
    "iterations",
    "content_weight",
    "style_weight",
)


@dataclass
class _Makers:
    """Makes the function that turns a slide's sample into its results, target by target."""

    arm: str
    normalized: Mapping[tuple[str, str], Path]
    options: Mapping[str, Any]
    baselines: Mapping[str, Path]

    def for_target(self, target: str, image_path: str | Path) -> Callable[[str], Any]:
        """Return slide → what makes its tiles; None for a slide that the arm does not concern."""
        needs = arm_named(self.arm).needs
        if "truth" in needs:
            return lambda slide: lambda sample: sample.truth_of(target)
        if "delivered" in needs:
            return lambda slide: self._reading(target, slide)
        folders = {self.arm: self.baselines[target]} if target in self.baselines else {}
        built = build_arm(self.arm, read_image(image_path), baseline_dirs=folders, **self.options)
        return lambda slide: built

    def _reading(self, target: str, slide: str) -> Callable[[EvaluationSample], Any] | None:
        path = self.normalized.get((target, slide))
        return None if path is None else lambda sample: _read_tiles(path, sample)


def _jobs_by_target(
    jobs: Sequence[Sequence[str]],
    samples: Mapping[str, EvaluationSample],
    targets: Mapping[str, Any],
) -> dict[str, dict[str, EvaluationSample]]:
    """Return target → slide → sample, of the jobs that have both, sorted by target."""
    wanted: dict[str, dict[str, EvaluationSample]] = {}
    for slide, target in sorted(map(tuple, jobs), key=lambda job: job[1]):
        if slide in samples and target in targets:
            wanted.setdefault(target, {})[slide] = samples[slide]
    return wanted


def _apply_to_target(
    makers: _Makers,
    target: str,
    image_path: str | Path,
    slides: Mapping[str, EvaluationSample],
    most: int | None,
    writer: ArmWriter,
    usage: Usage,
) -> None:
    maker = makers.for_target(target, image_path)
    is_from_slide = bool(arm_named(makers.arm).needs & {"delivered", "truth"})
    for slide, sample in progress(slides.items(), f"{makers.arm} to {target}", len(slides)):
        make = maker(slide)
        if make is None:
            continue
        if is_from_slide:
            result = make(sample)
        else:
            tiles = sample.source[:most]
            result = _make(make, tiles, usage)
            if makers.arm != "identity":
                result = _note_unchanged(result, tiles)
        if result is not None:
            result = result if isinstance(result, ArmResult) else _complete(result)
            writer.add(target, slide, result)
            _count(usage, result)


def _make(normalize: Normalize, tiles: Images, usage: Usage) -> ArmResult:
    """Return all tiles at once; where that fails, one by one, so that one costs no other."""
    started = time.perf_counter()
    try:
        result = _complete(_checked(normalize(tiles), tiles))
    except FAILURES:
        result = _one_by_one(normalize, tiles)
    usage.seconds += time.perf_counter() - started
    usage.pixels += int(np.prod(tiles.shape[:3]))
    return result


def _one_by_one(normalize: Normalize, tiles: Images) -> ArmResult:
    images, notes = np.zeros_like(tiles), [""] * len(tiles)
    for index in range(len(tiles)):
        tile = tiles[index : index + 1]
        try:
            images[index] = _checked(normalize(tile), tile)[0]
        except FAILURES as error:
            LOGGER.warning("%s", error)
            notes[index] = _sentence(error)
    return ArmResult(images, np.array([not note for note in notes], bool), notes)


def _checked(images: Any, tiles: Images) -> Images:
    images = np.asarray(images)
    if images.shape != tiles.shape or images.dtype != np.uint8:
        found, wanted = (f"{a.shape} {a.dtype}" for a in (images, tiles))
        raise ValueError(f"it returned {found} where {wanted} was expected")
    return images


def _complete(images: Images) -> ArmResult:
    return ArmResult(images, np.ones(len(images), bool), [""] * len(images))


def _note_unchanged(result: ArmResult, tiles: Images) -> ArmResult:
    """Say of which tiles an arm gave back what it got: as a rule it has no answer for them."""
    same = (result.image == tiles).all(axis=(1, 2, 3)) & result.is_made
    notes = [
        UNCHANGED_NOTE if is_same else note
        for is_same, note in zip(same, result.notes, strict=True)
    ]
    return ArmResult(result.image, result.is_made, notes)


def _read_tiles(path: Path, sample: EvaluationSample) -> ArmResult:
    """Return the sample's places in a normalised slide; damaged ones get a note."""
    images = np.zeros_like(sample.source)
    notes = [""] * len(sample)
    try:
        with SlideReader(path) as reader:
            for index, (x, y) in enumerate(sample.coords.tolist()):
                try:
                    side_px, mpp = images.shape[1], float(sample.attrs["mpp"])
                    images[index] = reader.read_at_mpp(x, y, side_px, mpp)
                except (StainFuserError, OSError) as error:
                    notes[index] = _sentence(error)
    except (StainFuserError, OSError) as error:
        notes = [_sentence(error)] * len(sample)
    return ArmResult(images, np.array([not note for note in notes], bool), notes)


def _count(usage: Usage, result: ArmResult) -> None:
    usage.tiles += len(result.is_made)
    usage.failed += int((~result.is_made).sum())
    failures = [n for n, made in zip(result.notes, result.is_made, strict=True) if not made]
    usage.first_failure = usage.first_failure or next(iter(failures), "")


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stamp(
    arm: str,
    seed: int,
    slow_arm_tiles: int,
    style_options: Mapping[str, Any],
    model_dir: str | Path | None,
    trained_dir: str | Path | None,
    baseline_dirs: Sequence[str | Path],
) -> dict[str, str]:
    """Return the stamp: settings and models that the arm depends on, and no others."""
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
    folders = {"model": model_dir, "trained": trained_dir}
    folders |= {f"baseline_{Path(path).parent.name}": path for path in baseline_dirs}
    for name, folder in folders.items():
        if folder is not None and (name in needs or name.startswith("baseline_")):
            hashes[f"{name}_sha256"] = fingerprint_model(folder)
    return make_stamp("apply_arm", config, **hashes)


def _record(
    arm: str,
    state: str,
    failure: str,
    usage: Usage,
    started: float,
    threads: int,
    device: str | None,
) -> dict[str, Any]:
    """Return the record of an arm: what became of it and what it took."""
    megapixels = usage.pixels / 1e6
    rate = usage.seconds / megapixels if megapixels and usage.tiles > usage.failed else None
    return {
        "arm": arm,
        "state": state,
        "failure": failure or None,
        "tiles": usage.tiles,
        "failed_tiles": usage.failed,
        "megapixels": megapixels,
        "seconds": usage.seconds,
        "seconds_per_megapixel": rate,
        "seconds_with_loading": time.perf_counter() - started,
        "threads": threads,
        "device": device or _device(),
    }


def _device() -> str:
    """Return where models ran, without loading torch for arms that had no need of it."""
    import sys

    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
