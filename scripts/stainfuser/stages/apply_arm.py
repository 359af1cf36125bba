"""One way to normalise on the evaluation tiles of all slides, to all their targets."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stainfuser.diffusion.arm_results import (
    Outcome,
    Usage,
    apply_to_tiles,
    complete,
    outcome_of,
    read_delivered,
    stamp_arm,
    style_arguments,
)
from stainfuser.diffusion.arms import build_arm
from stainfuser.diffusion.loading import load_pipeline
from stainfuser.evaluation_arms import arm_named
from stainfuser.files import write_json
from stainfuser.io.evaluation_store import (
    ArmResult,
    ArmWriter,
    EvaluationSample,
    open_arm_writer,
    read_sample,
)
from stainfuser.io.images import read_image
from stainfuser.logs import progress

Make = Callable[[EvaluationSample], ArmResult | None]


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
    started = time.perf_counter()
    samples = {Path(path).stem: read_sample(path) for path in sample_paths}
    targets = {Path(path).stem: path for path in target_paths}
    wanted = _jobs_by_target(jobs, samples, targets)
    options = {
        "model_dir": model_dir,
        "trained_dir": trained_dir,
        **style_arguments(style_options),
        "seed": seed,
        "threads": threads,
        "device": device,
        "load_model": load_model,
    }
    makers = _Makers(
        arm,
        {(path.parent.name, path.stem): path for path in map(Path, normalized_paths)},
        {path.parent.name: path for path in map(Path, baseline_dirs)},
        slow_arm_tiles if arm_named(arm).is_slow else None,
        options,
        Usage(),
    )
    models = {"model": model_dir, "trained": trained_dir}
    stamp = stamp_arm("apply_arm", arm, seed, slow_arm_tiles, style_options, models, baseline_dirs)
    with open_arm_writer(images_path, {"arm": arm, **stamp}) as writer:
        outcome = _run(makers, wanted, targets, writer)
        writer.set_attributes({"state": outcome.state, "failure": outcome.failure})
    record = {
        "arm": arm,
        "state": outcome.state,
        "failure": outcome.failure or None,
        **makers.usage.to_record(),
        "seconds_with_loading": time.perf_counter() - started,
        "threads": threads,
        "device": device or _device(),
    }
    write_json(record_path, record)


@dataclass
class _Makers:
    """Makes the functions that turn samples into results, target by target.

    `most` is the largest number of tiles of a slide, None for all.
    """

    arm: str
    normalized: Mapping[tuple[str, str], Path]
    baselines: Mapping[str, Path]
    most: int | None
    options: Mapping[str, Any]
    usage: Usage

    def for_target(self, target: str, image_path: str | Path) -> Callable[[str], Make | None]:
        """Return slide → what makes its tiles; None for a slide that the arm does not concern."""
        needs = arm_named(self.arm).needs
        if "truth" in needs:
            return lambda slide: lambda sample: _truth(sample, target)
        if "delivered" in needs:
            return lambda slide: self._reading(target, slide)
        folders = {self.arm: self.baselines[target]} if target in self.baselines else {}
        built = build_arm(self.arm, read_image(image_path), baseline_dirs=folders, **self.options)
        return lambda slide: (
            lambda sample: apply_to_tiles(built, sample.source[: self.most], self.usage)
        )

    def _reading(self, target: str, slide: str) -> Make | None:
        path = self.normalized.get((target, slide))
        return None if path is None else lambda sample: read_delivered(path, sample)


def _truth(sample: EvaluationSample, target: str) -> ArmResult | None:
    truth = sample.truth_of(target)
    return None if truth is None else complete(truth)


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


def _run(
    makers: _Makers,
    wanted: Mapping[str, Mapping[str, EvaluationSample]],
    targets: Mapping[str, str | Path],
    writer: ArmWriter,
) -> Outcome:
    """Write all results; return what became of the arm."""
    with outcome_of(makers.arm) as outcome:
        for target, slides in wanted.items():
            _apply_to_target(makers, target, targets[target], slides, writer)
        if makers.usage.has_failed:
            outcome.state, outcome.failure = "failed", makers.usage.first_failure
    return outcome


def _apply_to_target(
    makers: _Makers,
    target: str,
    image_path: str | Path,
    slides: Mapping[str, EvaluationSample],
    writer: ArmWriter,
) -> None:
    maker = makers.for_target(target, image_path)
    for slide, sample in progress(slides.items(), f"{makers.arm} to {target}", len(slides)):
        make = maker(slide)
        result = make(sample) if make else None
        if result is not None:
            writer.add(target, slide, result)
            makers.usage.count(result)


def _device() -> str:
    """Return where models ran, without loading torch for arms that had no need of it."""
    torch = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
