"""The arms of the evaluation: every way to normalise that is measured, and what each needs.

Base data without any computing: the workflow, the figures and the report know arms from here;
`diffusion.arms` builds them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

ALL = "all"
# What the demo's short list measures: seconds each, and nothing is trained for them.
QUICK = (
    "identity",
    "reinhard",
    "macenko",
    "vahadane",
    "render_1",
    "operator",
    "trained",
    "delivered",
)
BASELINE_ARMS = ("cagan_like", "cyclegan_like", "staindiff_like")


@dataclass(frozen=True)
class Arm:
    """One way to normalise: its name in tables, words, colour, origin and needs.

    Attributes
    ----------
    needs
        "model" (the model that normalises), "trained" (one that was trained beside it), "weights"
        (a feature network's, `pairs.feature_weights`), "baseline" (a network trained by the rule
        train_baseline), "delivered" (normalised slides) or "truth".
    steps
        Network calls of a rendering; None for every other arm.
    is_slow
        True for arms that get at most `evaluate.slow_arm_tiles` tiles of a slide.
    is_ours
        True for what StainFuser makes.
    competes
        False for references that do not normalise.
    """

    name: str
    label: str
    colour: str
    gist: str
    source: str = ""
    needs: frozenset[str] = frozenset()
    steps: int | None = None
    is_slow: bool = False
    is_ours: bool = False
    competes: bool = True


def _needs(*names: str) -> frozenset[str]:
    return frozenset(names)


def _render(steps: int, colour: str) -> Arm:
    calls = "one network call" if steps == 1 else f"{steps} network calls"
    return Arm(
        f"render_{steps}",
        f"StainFuser render, {steps} step{'s' * (steps > 1)}",
        colour,
        f"The model's diffusion part on the tile alone, {calls}.",
        "StainFuser (Jewsbury et al. 2024, arXiv 2403.09302)",
        _needs("model"),
        steps=steps,
        is_slow=steps >= 10,
        is_ours=True,
    )


_ARMS = (
    Arm("identity", "Untouched", "#8a8794", "The source as it is.", competes=False),
    Arm(
        "ruifrok",
        "Ruifrok",
        "#a4752c",
        "Fixed stain vectors; the amounts of both stains are matched, per tile.",
        "Ruifrok and Johnston 2001; vectors as in scikit-image",
    ),
    Arm(
        "reinhard",
        "Reinhard",
        "#b98a2f",
        "Mean and deviation in CIELAB, per tile.",
        "Reinhard et al. 2001; torchstain",
    ),
    Arm(
        "macenko",
        "Macenko",
        "#3f8f7a",
        "Stain directions and strengths, per tile.",
        "Macenko et al. 2009; torchstain",
    ),
    Arm(
        "vahadane",
        "Vahadane",
        "#2f7f9a",
        "Sparse, non-negative separation of two stains, per tile.",
        "Vahadane et al. 2016; checked against SPAMS",
    ),
    Arm(
        "nst",
        "NST",
        "#8c6bb1",
        "Neural style transfer with Gram matrices, pixels optimised, per tile.",
        "Gatys et al. 2016",
        _needs("weights"),
        is_slow=True,
    ),
    Arm(
        "vae",
        "VAE round trip",
        "#9a9a5c",
        "The source through the model's autoencoder and back; the stain is not changed.",
        "the floor under every latent model",
        _needs("model"),
        competes=False,
    ),
    Arm(
        "nst_vae",
        "NST, VAE round trip",
        "#7a5aa8",
        "Neural style transfer, then the autoencoder and back.",
        "Gatys et al. 2016",
        _needs("weights", "model"),
        is_slow=True,
    ),
    Arm(
        "cagan_like",
        "CAGAN-like",
        "#b0563e",
        "A colour-adaptive GAN of small size, trained on this cohort.",
        "after Cong et al. 2022 (CAGAN), not its code or weights",
        _needs("baseline"),
    ),
    Arm(
        "cyclegan_like",
        "CycleGAN-like",
        "#8f3f52",
        "A cycle-consistent GAN of small size, trained on this cohort.",
        "after Zhu et al. 2017 and StainGAN, not their code or weights",
        _needs("baseline"),
    ),
    Arm(
        "staindiff_like",
        "StainDiff-like",
        "#6d7f3a",
        "A cycle-consistent diffusion model of small size, trained on this cohort.",
        "after Shen and Ke 2023 (StainDiff), not its code or weights",
        _needs("baseline"),
        is_slow=True,
    ),
    _render(1, "#e2a1c2"),
    _render(5, "#d685b0"),
    _render(10, "#cb6a9e"),
    _render(20, "#c2568f"),
    _render(50, "#a83f78"),
    _render(100, "#8d2c62"),
    Arm(
        "operator",
        "StainFuser operator",
        "#7a5cc4",
        "The model's colour operator, fitted to the tile alone.",
        "StainFuser",
        _needs("model"),
        is_ours=True,
    ),
    Arm(
        "trained",
        "StainFuser, trained here",
        "#d98324",
        "The model that this run trained, on the tile alone; the slides are not made with it.",
        "StainFuser",
        _needs("trained"),
        is_ours=True,
    ),
    Arm(
        "delivered",
        "StainFuser, as delivered",
        "#38246e",
        "The normalised slide, read back from its file, JPEG losses included.",
        "StainFuser",
        _needs("delivered"),
        is_ours=True,
    ),
    Arm(
        "truth",
        "Truth",
        "#2b2733",
        "The same tissue in the target laboratory's stain.",
        needs=_needs("truth"),
        competes=False,
    ),
)
ARMS = {arm.name: arm for arm in _ARMS}


# What stands for StainFuser where one of its arms has to: slides if there are any.
OURS = ("delivered", "operator", "render_1", "render_5", "trained")


def slow_arms() -> list[str]:
    """Return the names of the arms that are slow, in their usual order."""
    return [name for name, arm in ARMS.items() if arm.is_slow]


def reference_arm(names: Collection[str]) -> str | None:
    """Return the arm of ours that the others are compared with, or None if none is there."""
    return next((name for name in OURS if name in names), None)


def arm_named(name: str) -> Arm:
    """Return an arm's words and colour; an unknown name is its own label, in grey."""
    return ARMS.get(name, Arm(name, name, "#777777", ""))


def chosen_arms(arms: str | list[str], has_truth: bool) -> list[str]:
    """Return the names that `evaluate.arms` asks for, in their usual order.

    `arms` is "all" or a list of names; the truth is measured where there is one, whatever the list.
    """
    wanted = set(ARMS if arms == ALL else arms) - {"truth"}
    return [name for name in ARMS if name in wanted or (name == "truth" and has_truth)]
