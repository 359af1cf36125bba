"""Study: is it the volume of training data that counts, or how diverse its tissue is?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stainfuser.diffusion.ablation_data import (
    LEAST_SECTION_PX,
    MPP,
    AblationPhantoms,
    draw_phantoms,
)
from stainfuser.diffusion.ablation_training import run_tiles, trained_model
from stainfuser.diffusion.study_numbers import (
    Measured,
    StudyNumbers,
    compared,
    draw_estimates,
    markdown_table,
    write_answer,
)
from stainfuser.diffusion.torch_threads import reproducible
from stainfuser.files import sha256_content
from stainfuser.logs import LOGGER
from stainfuser.stain.metrics import ciede2000, gradient_correlation
from stainfuser.stain.phantom_grid import Grid
from stainfuser.stain.phantom_layout import Composition, target_composition

# Tissue class → fractions of fat, muscle and glands; the rest is collagenous stroma.
CLASSES = {
    "glands": (0.0, 0.0, 0.85),
    "muscle": (0.0, 0.85, 0.0),
    "fat": (0.75, 0.0, 0.0),
    "stroma": (0.0, 0.0, 0.0),
}
REGION_UM = 120.0
ALL, FEW, UNTOUCHED = "all classes", "all classes, a quarter of the pairs", "untouched"
METRICS = {
    "ciede2000_truth": ("Colour error, \u0394E", 2),
    "gradient_correlation_source": ("Gradient correlation with the source", 3),
}


def study_data_diversity(
    *,
    answer_path: str | Path,
    table_path: str | Path,
    figure_path: str | Path,
    work_dir: str | Path,
    seed: int,
    centre: Mapping[str, Any],
    train: Mapping[str, Any],
    pairs: Mapping[str, Any],
    tile_px: int,
    sections: int,
    pairs_per_target: int,
    test_pairs: int,
    bootstrap_samples: int,
    confidence: float,
    threads: int = 1,
) -> None:
    """Train on all tissue classes, on fewer pairs, and without each class; test on every class.

    Parameters
    ----------
    centre, train, pairs
        As in the ablation; pairs are painted, so that their truth is exact.
    tile_px, sections
        Side of the phantoms' tiles at 40x, and sections grown per class.
    pairs_per_target
        Pairs of every training set and target, the same for all but the small one: a multiple of
        4 and of 3 divides evenly among the classes.
    test_pairs
        Test pairs per class.
    """
    drawn = {
        name: draw_phantoms(
            sections=sections,
            tile_px=tile_px,
            sources=2 * pairs_per_target,
            targets=centre["targets"],
            sources_per_target=pairs_per_target,
            test_pairs=test_pairs,
            seed=seed,
            composition=_composition(tile_px, name),
        )
        for name in CLASSES
    }
    rows = [row for name in CLASSES for row in _measure(None, UNTOUCHED, name, drawn[name], 0)]
    instance = {**centre, "pair_method": "truth"}
    # From the source itself: statistics of one tissue class and of a mixed target do not compare.
    train = {**train, "start": "source"}
    recipe = {
        "tile_px": tile_px,
        "sections": sections,
        "pairs_per_target": pairs_per_target,
        "test_pairs": test_pairs,
    }
    with reproducible(threads):
        for arm, shares in training_sets(pairs_per_target).items():
            LOGGER.info("training on %s", arm)
            key = sha256_content([seed, recipe, shares])
            model = trained_model(
                instance, joined(drawn, shares), train, pairs, key, Path(work_dir), seed
            )
            for name in CLASSES:
                rows += _measure(model, arm, name, drawn[name], int(centre["run_px"]))
    numbers = StudyNumbers(rows, seed, bootstrap_samples, confidence)
    numbers.write(table_path)
    draw_estimates(figure_path, numbers, [(name, text) for name, (text, _) in METRICS.items()])
    _write(answer_path, numbers, centre, pairs_per_target, test_pairs)


def training_sets(pairs_per_target: int) -> dict[str, dict[str, int]]:
    """Return arm → class → pairs of each target."""
    sets = {ALL: _divided(list(CLASSES), pairs_per_target)}
    sets[FEW] = _divided(list(CLASSES), max(pairs_per_target // 4, len(CLASSES)))
    for left_out in CLASSES:
        others = [name for name in CLASSES if name != left_out]
        sets[without(left_out)] = _divided(others, pairs_per_target)
    return sets


def without(name: str) -> str:
    """Return the name of the arm that never saw a class."""
    return f"without {name}"


def joined(drawn: Mapping[str, AblationPhantoms], shares: Mapping[str, int]) -> AblationPhantoms:
    """Put sources of several classes together; targets and laboratories are the same in all."""
    chosen = [(drawn[name], share) for name, share in shares.items()]
    offsets = np.cumsum([0, *(len(part.source) for part, _ in chosen[:-1])])
    return replace(
        chosen[0][0],
        source=np.concatenate([part.source for part, _ in chosen]),
        laboratory=np.concatenate([part.laboratory for part, _ in chosen]),
        rows=np.concatenate(
            [
                part.rows[:, :share] + offset
                for (part, share), offset in zip(chosen, offsets, strict=True)
            ],
            axis=1,
        ),
        truth=np.concatenate([part.truth[:, :share] for part, share in chosen], axis=1),
    )


def _divided(names: Sequence[str], total: int) -> dict[str, int]:
    """Divide a number as evenly as it goes."""
    return {name: len(range(place, total, len(names))) for place, name in enumerate(names)}


def _composition(tile_px: int, name: str) -> Composition:
    fat, muscle, gland = CLASSES[name]
    whole = target_composition(Grid(max(4 * tile_px, LEAST_SECTION_PX), MPP))
    return replace(
        whole,
        fat_fraction=fat,
        muscle_fraction=muscle,
        gland_fraction=gland,
        region_um=REGION_UM,
    )


def _measure(
    model: Any, arm: str, name: str, phantoms: AblationPhantoms, run_px: int
) -> list[Measured]:
    rows = []
    for number, group in enumerate(phantoms.test_laboratory.tolist()):
        source, truth = phantoms.test_source[number], phantoms.test_truth[number]
        result = source
        if model is not None:
            result = run_tiles(model, source, phantoms.test_target[number], run_px, 0)
        values = {
            "ciede2000_truth": ciede2000(result, truth),
            "gradient_correlation_source": gradient_correlation(source, result),
        }
        rows += [Measured(arm, name, str(number), str(group), m, v) for m, v in values.items()]
    return rows


def _write(
    path: str | Path,
    numbers: StudyNumbers,
    centre: Mapping[str, Any],
    pairs_per_target: int,
    test_pairs: int,
) -> None:
    ran = (
        f"Phantom sections that are mostly one tissue class each ({', '.join(CLASSES)}), painted "
        "in the same laboratories. Every training is of a bridge that starts from the source, and "
        f"has {centre['targets']} targets (of mixed "
        f"tissue) with {pairs_per_target} exact pairs each and {centre['training_steps']} steps: "
        "of all classes, or of all but one. Another has all classes and a quarter of the pairs. "
        f"Each is measured on {test_pairs} pairs per class of other sections in other "
        "laboratories (40x)."
    )
    metric = "ciede2000_truth"
    table = markdown_table(
        ["trained on", *CLASSES],
        [
            [arm, *(numbers.mean(arm, name, metric).text(2) for name in CLASSES)]
            for arm in numbers.names("arm")
        ],
    )
    gained = [
        f"- {name}: trained on all classes, against {UNTOUCHED}, the colour error is "
        f"{compared(numbers.difference(ALL, UNTOUCHED, name, metric), 2)}."
        for name in CLASSES
    ]
    if any(numbers.difference(ALL, UNTOUCHED, name, metric).high >= 0 for name in CLASSES):
        gained.append(
            "- Where training is not nearer to the truth than doing nothing, it was too short for "
            "the comparisons below to say much: raise `ablation.centre.training_steps`."
        )
    unseen = [
        f"- {name}: never seen, against seen, the colour error is "
        f"{compared(numbers.difference(without(name), ALL, name, metric), 2)}; with a quarter of "
        f"the pairs but all classes it is "
        f"{compared(numbers.difference(FEW, ALL, name, metric), 2)}."
        for name in CLASSES
    ]
    limits = (
        "It shows what one small model does with an unseen phantom tissue whose dyes and "
        "laboratory are as varied as those it has seen: tissue is the only thing that is new. "
        "Real tissue classes differ in more than the four here, and a class that is left out "
        "still shares its nuclei and fibres with the others. Steps are the same for all, so the "
        "smaller set is seen more often. An interval that contains zero means that this many "
        "pairs do not tell the arms apart."
    )
    body = f"Colour error to the truth, CIEDE2000, on each class:\n\n{table}"
    sections = [
        ("What was run", ran),
        ("Numbers", body),
        ("Answer", "\n".join([*gained, *unseen])),
        ("What it does and does not show", limits),
    ]
    write_answer(path, "Data volume against diversity", sections)
