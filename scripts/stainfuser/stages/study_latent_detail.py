"""Study: does a latent space lose fine detail that pixels and an operator keep?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.ablation_data import MPP, AblationPhantoms, read_phantoms
from stainfuser.diffusion.ablation_training import averaged, run_tiles, trained_model
from stainfuser.diffusion.benchmark_arms import operated
from stainfuser.diffusion.study_numbers import (
    Measured,
    StudyNumbers,
    compared,
    draw_estimates,
    markdown_table,
    write_answer,
)
from stainfuser.diffusion.torch_threads import reproducible
from stainfuser.diffusion.validation import round_trip
from stainfuser.errors import ConfigError
from stainfuser.files import sha256_file
from stainfuser.logs import LOGGER
from stainfuser.stain.metrics import ciede2000, gradient_correlation
from stainfuser.stain.nuclear_texture import texture_agreement

Images = NDArray[np.uint8]
MAGNIFICATIONS = {"40x": 1, "20x": 2}
UNTOUCHED, PIXELS, OPERATOR = "untouched", "pixel space", "operator fitted to pixel space"
METRICS = {
    "nuclear_contrast": ("Nuclear texture, contrast (1: kept)", 3),
    "nuclear_texture": ("Nuclear texture, correlation", 3),
    "gradient_correlation": ("Gradient correlation", 3),
    "ciede2000_truth": ("Colour error, \u0394E", 2),
}


def study_latent_detail(
    *,
    phantoms_path: str | Path,
    answer_path: str | Path,
    table_path: str | Path,
    figure_path: str | Path,
    work_dir: str | Path,
    seed: int,
    centre: Mapping[str, Any],
    train: Mapping[str, Any],
    pairs: Mapping[str, Any],
    latents: Sequence[Sequence[int]],
    bootstrap_samples: int,
    confidence: float,
    threads: int = 1,
) -> None:
    """Train the centre of the ablation in several latent spaces and look at nuclei.

    Parameters
    ----------
    phantoms_path, centre, train, pairs
        As in the ablation.
    latents
        Latent spaces, (side of a patch in px, numbers kept per patch) each. All numbers of a patch
        are its pixels in another basis.
    answer_path, table_path, figure_path
        Markdown, CSV and PNG.
    """
    rows: list[Measured] = []
    with reproducible(threads):
        phantoms = read_phantoms(phantoms_path)
        key = sha256_file(phantoms_path)
        rows += _measure(phantoms, UNTOUCHED, lambda source, target: source)
        for patch_px, channels in [*map(tuple, latents), _pixels(train)]:
            name = _name(patch_px, channels)
            model = trained_model(
                {**centre, "autoencoder": "none" if name == PIXELS else "finetuned"},
                phantoms,
                {**train, "latent_patch_px": patch_px, "latent_channels": channels},
                pairs,
                key,
                Path(work_dir),
                seed,
            )
            LOGGER.info("%s: measuring", name)
            render = _renderer(model, int(centre["run_px"]))
            rows += _measure(phantoms, name, render)
            rows += _measure_round_trip(phantoms, f"{name}, round trip", model)
            if name == PIXELS:
                rows += _measure(phantoms, OPERATOR, _by_operator(render))
    numbers = StudyNumbers(rows, seed, bootstrap_samples, confidence)
    numbers.write(table_path)
    draw_estimates(figure_path, numbers, [(name, text) for name, (text, _) in METRICS.items()])
    names = [_name(*map(int, latent)) for latent in latents]
    _write(answer_path, numbers, names, centre, len(phantoms.test_source))


def _pixels(train: Mapping[str, Any]) -> tuple[int, int]:
    return train["latent_patch_px"], 3 * train["latent_patch_px"] ** 2


def _name(patch_px: int, channels: int) -> str:
    whole = 3 * patch_px**2
    if channels > whole:
        wrong = f"a patch of {patch_px} px has {whole} numbers, {channels} were asked for"
        raise ConfigError("studies.latents", wrong, "lower the second number")
    return PIXELS if channels == whole else f"latent, {whole / channels:.1f} times fewer numbers"


def _renderer(model: Any, run_px: int) -> Callable[[Images, Images], Images]:
    return lambda source, target: run_tiles(model, source, target, run_px, 0)


def _by_operator(render: Callable[[Images, Images], Images]) -> Callable[[Images, Images], Images]:
    return lambda source, target: operated(source, render(source, target))


def _measure(
    phantoms: AblationPhantoms, arm: str, normalize: Callable[[Images, Images], Images]
) -> list[Measured]:
    rows = []
    for number, group in enumerate(phantoms.test_laboratory.tolist()):
        for data, factor in MAGNIFICATIONS.items():
            images = (phantoms.test_source, phantoms.test_target, phantoms.test_truth)
            source, target, truth = (averaged(image[number], factor) for image in images)
            result = normalize(source, target)
            nuclei = phantoms.test_nuclei[number][::factor, ::factor]
            values = texture_agreement(result, truth, nuclei, MPP * factor)
            values["gradient_correlation"] = gradient_correlation(truth, result)
            values["ciede2000_truth"] = ciede2000(result, truth)
            rows += [Measured(arm, data, str(number), str(group), m, v) for m, v in values.items()]
    return rows


def _measure_round_trip(phantoms: AblationPhantoms, arm: str, model: Any) -> list[Measured]:
    """Compare sources with their own round trip through the autoencoder."""
    rows = []
    for number, group in enumerate(phantoms.test_laboratory.tolist()):
        for data, factor in MAGNIFICATIONS.items():
            source = averaged(phantoms.test_source[number], factor)
            result = round_trip(model, source)
            nuclei = phantoms.test_nuclei[number][::factor, ::factor]
            values = texture_agreement(result, source, nuclei, MPP * factor)
            values["gradient_correlation"] = gradient_correlation(source, result)
            rows += [Measured(arm, data, str(number), str(group), m, v) for m, v in values.items()]
    return rows


def _write(
    path: str | Path,
    numbers: StudyNumbers,
    latents: Sequence[str],
    centre: Mapping[str, Any],
    pairs: int,
) -> None:
    ran = (
        f"{pairs} pairs of phantom tissue in laboratories drawn at random, painted twice so that "
        "the truth is known and nuclei are labelled. One bridge is trained per latent space, all "
        f"else alike ({centre['training_steps']} steps, {centre['targets']} targets), and run on "
        f"tiles of {centre['run_px']} px at 40x (0.25 um/px) and 20x. *Nuclear texture* is the "
        "mean optical density inside nuclei between 0.2 and 1 um: its contrast relative to the "
        "truth's, and its correlation with it. The round trip of an autoencoder is compared with "
        "its own input."
    )
    tables = [
        f"**{data}**\n\n"
        + markdown_table(
            ["arm", *(text for text, _ in METRICS.values())],
            [
                [arm, *(numbers.mean(arm, data, m).text(d) for m, (_, d) in METRICS.items())]
                for arm in numbers.names("arm")
            ],
        )
        for data in MAGNIFICATIONS
    ]
    lines = [
        f"- {data}, {name} against {PIXELS}: nuclear texture correlation "
        f"{compared(numbers.difference(name, PIXELS, data, 'nuclear_texture'), 3)}; colour error "
        f"{compared(numbers.difference(name, PIXELS, data, 'ciede2000_truth'), 2)}."
        for data in MAGNIFICATIONS
        for name in (*latents, OPERATOR)
        if name != PIXELS
    ]
    limits = (
        "It shows what this small autoencoder and these small networks lose on phantoms, whose "
        "chromatin is simpler than that of real nuclei. It says nothing about Stable Diffusion's "
        "autoencoder, which was trained on other images and was not run here. An interval that "
        "contains zero means that this many pairs do not tell the arms apart, not that they are "
        "equal."
    )
    sections = [
        ("What was run", ran),
        ("Numbers", "\n\n".join(tables)),
        ("Answer", "\n".join(lines)),
        ("What it does and does not show", limits),
    ]
    write_answer(path, "Latent resolution and fine detail", sections)
