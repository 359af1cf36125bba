"""Load a trained model for a stage: one sentence if the folder cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stainfuser.errors import InputError
from stainfuser.files import sha256_content, sha256_file

# A model card says what a model is and changes nothing it does.
MODEL_FILES = (".json", ".safetensors")


def load_pipeline(model_dir: str | Path, device: str | None = None) -> Any:
    """Return the `StainFuserPipeline` of a folder on `device` (None: an accelerator if any).

    Raises
    ------
    InputError
        The folder is missing, incomplete, damaged or holds another kind of model.
    """
    import torch
    from diffusers.utils.logging import disable_progress_bar
    from safetensors import SafetensorError

    from stainfuser.diffusion.pipeline import StainFuserPipeline

    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    disable_progress_bar()
    try:
        pipe = StainFuserPipeline.from_pretrained(model_dir)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        wrong = f"is not a complete StainFuser model ({reason})"
        raise InputError(model_dir, wrong, "train again or copy the whole folder again") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def fingerprint_model(model_dir: str | Path) -> str:
    """Return one SHA-256 over names and contents of a model folder's configurations and weights."""
    folder = Path(model_dir)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in MODEL_FILES)
    if not files:
        raise InputError(folder, "holds no model", "give the folder of a trained StainFuser model")
    return sha256_content(
        {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
    )
