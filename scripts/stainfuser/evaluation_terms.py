"""Names of the evaluation's tables and metrics, and what they are called in front of people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TABLE_COLUMNS = ("method", "target", "slide", "tile", "metric", "value", "note")
# The target of the summary that pools all others, where there are several.
ALL_TARGETS = "(all)"
SUMMARY_COLUMNS = ("method", "target", "metric", "value", "ci_low", "ci_high", "n")


@dataclass(frozen=True)
class Metric:
    """One metric: its name in tables, label, unit and direction, and what it compares with.

    `against` is "truth", "source" or "target"; `is_higher_better` tells the direction; `digits`
    are those worth printing; `gist` is one sentence for a reader who is not a specialist. Methods
    may be ranked by metrics with `is_ranking`; the others are won by changing nothing, or by
    copying the target's composition.
    """

    name: str
    label: str
    unit: str
    against: str
    is_higher_better: bool
    digits: int
    gist: str
    is_ranking: bool = True


# Name in tables and label of Fréchet distances, by the features they are measured on.
DISTANCES = {
    "fd_stain": ("FD-stain", "21 numbers on stain and grain of this repository"),
    "fd_inception": ("FD-inception", "Inception weights that are not the published ones"),
    "fid": ("FID", "the published Inception weights"),
}


def _distances(against: str) -> tuple[Metric, ...]:
    """Return the Fréchet distances against "truth" or "target"."""
    whom = {"truth": "the true tiles", "target": "pieces of the target image"}[against]
    trap = "" if against == "truth" else "; fooled by composition, as the truth's own value shows"
    return tuple(
        Metric(
            f"{name}_{against}",
            label,
            "",
            against,
            False,
            3,
            f"Fr\u00e9chet distance of all tiles together to {whom}, on {features}{trap}.",
            is_ranking=against == "truth",
        )
        for name, (label, features) in DISTANCES.items()
    )


METRICS = (
    Metric(
        "ciede2000_truth",
        "Colour difference",
        "\u0394E",
        "truth",
        False,
        2,
        "Mean CIEDE2000 to the same tissue in the target laboratory's stain; about 1 is just "
        "visible.",
    ),
    Metric(
        "psnr_truth", "PSNR", "dB", "truth", True, 1, "Signal-to-noise ratio against the truth."
    ),
    Metric("ssim_truth", "SSIM", "", "truth", True, 3, "Structural similarity to the truth."),
    *_distances("truth"),
    Metric(
        "gradient_correlation_source",
        "Gradient correlation",
        "",
        "source",
        True,
        3,
        "Whether every edge of the source is still there, and no other; a change of colour does "
        "not lower it.",
    ),
    Metric(
        "invented_structure_source",
        "Invented detail",
        "",
        "source",
        False,
        4,
        "Share of the result's fine detail that no local colour map of the source explains; the "
        "truth, scanned anew, is not at 0.",
    ),
    Metric(
        "nucleus_f1_source",
        "Nuclei, F1",
        "",
        "source",
        True,
        3,
        "Whether the same segmentation finds the same nuclei before and after; a method that "
        "makes nuclei easier to see loses a little, so compare with the truth's value.",
    ),
    Metric(
        "nucleus_area_change_source",
        "Nuclei, change of area",
        "",
        "source",
        False,
        3,
        "Mean relative change of the area of nuclei found before and after.",
        is_ranking=False,
    ),
    Metric(
        "nucleus_shape_change_source",
        "Nuclei, change of shape",
        "",
        "source",
        False,
        3,
        "Mean change of the ratio of axes of nuclei found before and after.",
        is_ranking=False,
    ),
    Metric(
        "ssim_source",
        "SSIM",
        "",
        "source",
        True,
        3,
        "Structural similarity to the source; falls with any change of colour too.",
        is_ranking=False,
    ),
    Metric(
        "psnr_source",
        "PSNR",
        "dB",
        "source",
        True,
        1,
        "Signal-to-noise ratio against the source; the better the less was changed.",
        is_ranking=False,
    ),
    Metric(
        "ssim_source_published",
        "SSIM as published",
        "",
        "source",
        True,
        4,
        "Flat window, 256 px, against the source, as the paper's evaluation computes it: it "
        "measures preservation, and doing nothing wins.",
        is_ranking=False,
    ),
    Metric(
        "psnr_source_published",
        "PSNR as published",
        "dB",
        "source",
        True,
        2,
        "256 px, against the source, as the paper's evaluation computes it.",
        is_ranking=False,
    ),
    Metric(
        "style_distance_target",
        "Class-wise style distance",
        "OD",
        "target",
        False,
        3,
        "Distance of the colours of background, nuclei and the rest to the same classes of the "
        "target image; composition counts little.",
    ),
    Metric(
        "style_nuclei_target",
        "Style of nuclear pixels",
        "OD",
        "target",
        False,
        3,
        "The part of the class-wise distance that is about nuclei.",
        is_ranking=False,
    ),
    Metric(
        "style_stroma_target",
        "Style of other tissue",
        "OD",
        "target",
        False,
        3,
        "The part of the class-wise distance that is about tissue other than nuclei.",
        is_ranking=False,
    ),
    Metric(
        "nucleus_style_target",
        "Style nucleus by nucleus",
        "OD",
        "target",
        False,
        3,
        "Distance of the colours of nuclei to those of the target's nuclei of their size.",
    ),
    Metric(
        "sliced_wasserstein_target",
        "Plain style distance",
        "OD",
        "target",
        False,
        3,
        "Distance of all colours to all colours of the target image; fooled by composition, so "
        "compare it with the truth's own value.",
        is_ranking=False,
    ),
    *_distances("target"),
)

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}


def known_order(names: Iterable[str], known: Mapping[str, object]) -> list[str]:
    """Return the distinct `names` in the order of `known`, unknown ones behind, sorted."""
    distinct = set(names)
    return [name for name in known if name in distinct] + sorted(distinct - set(known))


def paired_name(metric: str, ours: str) -> str:
    """Return the name of a metric's difference to one of our arms, on the tiles of both."""
    return f"{metric}_minus_{ours}"


def number(text: Any) -> float | None:
    """Return a text as a finite number, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if abs(value) != float("inf") and value == value else None
