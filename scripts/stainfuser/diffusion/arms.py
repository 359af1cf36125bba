"""Build the arms of the evaluation: one function from tiles to tiles each, fitted to one target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stainfuser.diffusion.loading import load_pipeline
from stainfuser.errors import InputError
from stainfuser.evaluation_arms import ARMS, BASELINE_ARMS, Arm
from stainfuser.seeds import derive_seed

__all__ = ["ARMS", "ArmNotAvailableError", "Images", "Normalize", "build_arm"]

Images = NDArray[np.uint8]
Normalize = Callable[[Images], Images]
LoadModel = Callable[[str | Path, str | None], Any]

# How neural style transfer runs unless it is said otherwise: the defaults of the section `pairs`.
STYLE_OPTIONS = {
    "feature_network": "vgg19",
    "allow_random_weights": False,
    "optimizer": "lbfgs",
    "iterations": 60,
    "content_weight": 1.0,
    "style_weight": 1.0,
}


class ArmNotAvailableError(InputError):
    """An arm cannot be built here: something it needs was not given. Not a failure of the arm."""


def build_arm(
    name: str,
    target_image: Images,
    *,
    model_dir: str | Path | None = None,
    trained_dir: str | Path | None = None,
    baseline_dirs: Mapping[str, str | Path] | None = None,
    feature_weights: str | None = None,
    style_options: Mapping[str, Any] | None = None,
    seed: int,
    threads: int = 1,
    device: str | None = None,
    load_model: LoadModel = load_pipeline,
) -> Normalize:
    """Return what an arm does: (N, S, S, 3) uint8 RGB tiles to as many, each on its own.

    Parameters
    ----------
    name
        One of `ARMS`, except "delivered" and "truth", which are read from slides.
    target_image
        (H, W, 3) uint8 RGB reference.
    model_dir, trained_dir
        Folder of the model that normalises, and of one trained beside it.
    baseline_dirs
        Name of a baseline → the folder of the network trained for this target.
    feature_weights, style_options
        nst*: file of the feature network's weights, and the other nst keys of the section `pairs`.
    seed
        Of the initial noise of models that start from any.
    threads, device, load_model
        Threads of torch, device of the model (None: an accelerator if any), and how it is loaded.

    Raises
    ------
    ArmNotAvailableError
        Something the arm needs was not given, or the model lacks the part.
    InputError
        Weights or models that cannot be read, or an arm that is not built from tiles.
    """
    arm = ARMS.get(name)
    if arm is None or arm.needs & {"delivered", "truth"}:
        known = ", ".join(a.name for a in ARMS.values() if not a.needs & {"delivered", "truth"})
        raise InputError(f"arm {name}", "it cannot be built from tiles", f"use one of {known}")
    if name == "identity":
        return np.copy
    if not arm.needs:
        return _classical(name, target_image)
    import torch

    torch.set_num_threads(threads)
    if "baseline" in arm.needs:
        return _baseline(name, baseline_dirs or {})
    noise = derive_seed(seed, "evaluate", "noise") >> 1
    model = partial(_model, load_model, device)
    if name == "trained":
        if trained_dir is None:
            raise ArmNotAvailableError(f"arm {name}", "no model was trained beside", "train one")
        # What is trained is the diffusion part, whatever its model does by default.
        return _by_pipeline(model(trained_dir), target_image, "render", None, noise)
    if "weights" in arm.needs:
        style = _neural_style(target_image, feature_weights, style_options or {}, seed)
        return _then(style, _round_trip(name, model(model_dir))) if name == "nst_vae" else style
    return _own(arm, model(model_dir), target_image, noise)


def _own(arm: Arm, pipe: Any, target_image: Images, noise: int) -> Normalize:
    """Return an arm of the model that normalises."""
    if arm.name == "vae":
        return _round_trip(arm.name, pipe)
    if arm.name == "operator" and pipe.operator_head is None:
        return _each(partial(_fitted_to, _by_pipeline(pipe, target_image, "render", None, noise)))
    if arm.steps is not None:
        _check_part(arm.name, pipe)
    mode = "operator" if arm.name == "operator" else "render"
    return _by_pipeline(pipe, target_image, mode, arm.steps, noise)


def _classical(name: str, target_image: Images) -> Normalize:
    from stainfuser.stain.classical import fit_classical

    normalize = fit_classical(name, target_image)
    return _each(lambda tile: normalize(tile).image)


def _baseline(name: str, folders: Mapping[str, str | Path]) -> Normalize:
    assert name in BASELINE_ARMS
    if name not in folders:
        raise ArmNotAvailableError(
            f"arm {name}", "no such network was trained", "run train_baseline"
        )
    from stainfuser.diffusion.baselines import load_baseline

    return load_baseline(Path(folders[name]))


def _model(load_model: LoadModel, device: str | None, folder: str | Path | None) -> Any:
    if folder is None:
        raise ArmNotAvailableError("arm", "no model was given", "set the configuration key model")
    return _loaded(load_model, device, str(folder))


@lru_cache(maxsize=2)
def _loaded(load_model: LoadModel, device: str | None, folder: str) -> Any:
    """Return a model, loaded once for all targets."""
    return load_model(folder, device)


def _check_part(name: str, pipe: Any) -> None:
    if not pipe.can_render:
        remedy = "use a model that has one"
        raise ArmNotAvailableError(f"arm {name}", "the model has no diffusion part", remedy)


def _by_pipeline(
    pipe: Any, target_image: Images, mode: str, steps: int | None, noise: int
) -> Normalize:
    """Return what a model makes of a tile on its own."""
    encoded = pipe.encode_target(target_image)

    def normalize(tile: Images) -> Images:
        # The tile is all that is known of its slide; said so, no tile is warned of.
        alone = pipe.fit_slide(tile[None], encoded)
        options = {"generator": noise, "output_type": "np", "slide": alone, "mode": mode}
        options["num_inference_steps"] = steps
        return np.asarray(pipe(tile[None], encoded, **options).images)[0]

    return _each(normalize)


def _round_trip(name: str, pipe: Any) -> Normalize:
    from stainfuser.diffusion.validation import round_trip

    _check_part(name, pipe)
    return _each(partial(round_trip, pipe))


def _neural_style(
    target_image: Images, weights: str | None, options: Mapping[str, Any], seed: int
) -> Normalize:
    from stainfuser.nn.feature_networks import load_feature_network
    from stainfuser.nn.gram_style import GramStyle, GramStyleOptions

    chosen = {**STYLE_OPTIONS, **options}
    if weights is None and not chosen["allow_random_weights"]:
        wrong = "it needs a feature network's weights, and none are given"
        raise ArmNotAvailableError("arm nst", wrong, "set pairs.feature_weights")
    network = load_feature_network(
        chosen["feature_network"],
        weights,
        allow_random_weights=chosen["allow_random_weights"],
        seed=derive_seed(seed, "feature network") % 2**32,
    )
    names = ("optimizer", "iterations", "content_weight", "style_weight")
    settings = GramStyleOptions(**{key: chosen[key] for key in names})
    return _each(GramStyle(network, target_image, settings).pixels)


def _fitted_to(render: Normalize, tile: Images) -> Images:
    """Return a tile through the colour operator that comes nearest to its rendering."""
    from stainfuser.diffusion.benchmark_arms import operated

    return operated(tile, render(tile[None])[0])


def _then(first: Normalize, second: Normalize) -> Normalize:
    return lambda tiles: second(first(tiles))


def _each(normalize: Callable[[Images], Images]) -> Normalize:
    """Return a function of (N, S, S, 3) from one of (S, S, 3)."""

    def every(tiles: Images) -> Images:
        return np.stack([normalize(tile) for tile in tiles]) if len(tiles) else tiles.copy()

    return every
