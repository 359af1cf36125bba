"""Names of the evaluation's tables and metrics, and what they are called in front of people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

TABLE_COLUMNS = ("method", "target", "slide", "tile", "metric", "value", "note")
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
)

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}


def known_order(names: Iterable[str], known: Mapping[str, object]) -> list[str]:
    """Return the distinct `names` in the order of `known`, unknown ones behind, sorted."""
    distinct = set(names)
    return [name for name in known if name in distinct] + sorted(distinct - set(known))
