"""Check a folder in diffusers' layout before it is loaded: whole, of the right architecture."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from stainfuser.errors import InputError
from stainfuser.presets import read_contents

WEIGHTS = "diffusion_pytorch_model.safetensors"
# A folder may name only these: importing a module runs it.
LIBRARIES = ("diffusers", "stainfuser.nn.")
REMEDY = "train the model again, or copy the folder once more, whole"


def read_model_index(folder: Path, pipeline_class: str) -> dict[str, Any]:
    """Return `model_index.json`, or raise `InputError` if this is no folder of `pipeline_class`."""
    contents = read_contents(folder)
    index = contents.index
    # A folder with nothing but an operator head needs no index.
    found = index.get("_class_name") if index else pipeline_class
    if found != pipeline_class:
        raise InputError(
            folder,
            f"holds a {found}, expected a {pipeline_class}",
            "give a folder that train_normalizer or save_pretrained wrote",
        )
    return index


def check_component(folder: Path, library: str, class_name: str) -> None:
    """Compare a component's weight file with its own configuration, without reading weights.

    Raises `InputError` on a missing or truncated file, and on names or shapes of tensors that
    differ from what the configuration builds.
    """
    config = _read_mapping(folder / "config.json", folder)
    weights = folder / WEIGHTS
    if (folder / f"{WEIGHTS}.index.json").exists():
        return
    expected = _expected_shapes(folder, library, class_name, config)
    try:
        with safe_open(weights, framework="pt") as handle:
            found = {key: tuple(handle.get_slice(key).get_shape()) for key in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(weights, "the weight file is missing", REMEDY) from None
    except (SafetensorError, OSError) as error:
        raise InputError(weights, f"the weight file is damaged ({error})", REMEDY) from None
    wrong = sorted(
        key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
    )
    if wrong:
        raise InputError(
            weights,
            f"the weights are of another architecture than config.json says ({len(wrong)} tensors "
            f"differ, the first is {wrong[0]})",
            REMEDY,
        )


def check_finite(module: nn.Module, where: object) -> None:
    """Raise `InputError` if any weight is NaN or infinite."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(where, f"the weight {name} is not finite", REMEDY)


def align(module: nn.Module) -> None:
    """Move weights out of the mapped file, whose alignment changes the last bits of results."""
    for tensor in module.parameters():
        tensor.data = tensor.data.clone()


def _expected_shapes(
    folder: Path, library: str, class_name: str, config: dict[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Build the component without memory and return the shapes of its tensors."""
    from accelerate import init_empty_weights

    if not library.startswith(LIBRARIES):
        raise InputError(folder, f"asks for code of {library}", "use a model of this package")
    try:
        component = getattr(importlib.import_module(library), class_name)
        with init_empty_weights():
            module = component.from_config(config)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise InputError(folder, f"config.json builds no {class_name} ({error})", REMEDY) from None
    return {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}


def _read_mapping(path: Path, folder: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(folder, f"{path.name} is missing", REMEDY) from None
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read as JSON ({error})", REMEDY) from None
    if not isinstance(content, dict):
        raise InputError(path, "is not a JSON object", REMEDY)
    return content
