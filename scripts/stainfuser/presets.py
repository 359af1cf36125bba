"""Where models lie: the presets shipped with the package by name, every other one by its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stainfuser.errors import InputError

PRETRAINED = Path(__file__).parent / "pretrained"
MODEL_INDEX, HEAD_FOLDER = "model_index.json", "operator_head"
DIFFUSION_PARTS = ("vae", "unet", "controlnet", "scheduler")


@dataclass(frozen=True)
class ModelContents:
    """What a model folder holds, told without loading any of it.

    Attributes
    ----------
    folder
        The folder.
    index
        Its ``model_index.json``; empty where it holds nothing but an operator head.
    """

    folder: Path
    index: dict[str, Any]

    @property
    def has_head(self) -> bool:
        """Tell whether there is an operator head."""
        return (self.folder / HEAD_FOLDER).is_dir()

    @property
    def can_render(self) -> bool:
        """Tell whether there is a diffusion part."""
        return any((self.index.get(part) or [None])[0] for part in DIFFUSION_PARTS)

    @property
    def mpp(self) -> float | None:
        """Micrometres per px the model was trained at, if it is known."""
        return self.index.get("mpp")


def shipped_presets() -> list[str]:
    """Return the names of the models that come with the package."""
    found = (path for path in PRETRAINED.iterdir() if path.is_dir())
    return sorted(path.name for path in found if _holds_a_model(path))


def find_model(model: str | Path) -> Path:
    """Return the folder of a model.

    A text that is a shipped preset's name means the preset, wherever the program runs; a folder
    that happens to be called so is given as ``./compact``, or as a `Path`.

    Raises
    ------
    InputError
        It is neither a preset nor a folder.
    """
    presets = shipped_presets()
    if isinstance(model, str) and model in presets:
        return PRETRAINED / model
    if not Path(model).is_dir():
        known = ", ".join(presets) or "none"
        remedy = f"give the folder of a model, or a shipped preset ({known})"
        raise InputError(model, "there is no such model folder", remedy)
    return Path(model)


def read_contents(folder: str | Path) -> ModelContents:
    """Look what a model folder holds.

    Raises
    ------
    InputError
        It holds no model, or its index cannot be read.
    """
    folder = Path(folder)
    if not _holds_a_model(folder):
        remedy = "give a folder that train_normalizer or save_pretrained wrote"
        raise InputError(folder, f"holds no model ({MODEL_INDEX} is missing)", remedy)
    path = folder / MODEL_INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be read as JSON ({error})", "copy it again") from None
    if not isinstance(index, dict):
        raise InputError(path, "is not a JSON object", "copy the folder once more, whole")
    return ModelContents(folder, index)


def _holds_a_model(folder: Path) -> bool:
    return (folder / MODEL_INDEX).is_file() or (folder / HEAD_FOLDER / "config.json").is_file()
