"""Names of the evaluation's methods and metrics, and what they are called in front of people."""

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


@dataclass(frozen=True)
class Method:
    """One way to normalise a tile: its name in tables, label, colour and a sentence."""

    name: str
    label: str
    colour: str
    gist: str


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

METHODS = (
    Method("identity", "Untouched", "#8a8794", "The source as it is."),
    Method("reinhard", "Reinhard", "#b98a2f", "Mean and deviation in CIELAB, per tile."),
    Method("macenko", "Macenko", "#3f8f7a", "Stain directions and strengths, per tile."),
    Method("stainfuser_tile", "StainFuser, tile", "#c2568f", "The model on the tile alone."),
    Method(
        "trained_tile",
        "Trained here, tile",
        "#d98324",
        "The model that this run trained, on the tile alone; the slides are not made with it.",
    ),
    Method(
        "stainfuser_operator",
        "StainFuser, slide (operator)",
        "#5a3fa0",
        "The delivered slide, made by one colour operator for all of it.",
    ),
    Method(
        "stainfuser_render",
        "StainFuser, slide (rendered)",
        "#3c55b4",
        "The delivered slide, every tile through the model.",
    ),
    Method(
        "stainfuser_unchanged",
        "StainFuser, slide (unchanged)",
        "#6f6a7a",
        "The delivered slide, in which no tissue was found.",
    ),
    Method(
        "stainfuser_slide",
        "StainFuser, slides as delivered",
        "#38246e",
        "All delivered slides, however each was made.",
    ),
    Method("truth", "Truth", "#2b2733", "The same tissue in the target laboratory's stain."),
)

# Slides as delivered, by how they were made; pooled as `stainfuser_slide` where a run has several.
SLIDE_METHODS = ("stainfuser_operator", "stainfuser_render", "stainfuser_unchanged")

METRIC_BY_NAME = {metric.name: metric for metric in METRICS}
METHOD_BY_NAME = {method.name: method for method in METHODS}


def method_named(name: str) -> Method:
    """Return a method's words and colour; an unknown name is its own label, in grey."""
    return METHOD_BY_NAME.get(name, Method(name, name, "#777777", ""))


def known_order(names: Iterable[str], known: Mapping[str, object]) -> list[str]:
    """Return the distinct `names` in the order of `known`, unknown ones behind, sorted."""
    distinct = set(names)
    return [name for name in known if name in distinct] + sorted(distinct - set(known))
