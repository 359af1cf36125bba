"""Training checkpoints: folders that are whole or absent, the last two kept, never a pickle."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stainfuser.files import read_json, sync_file, write_json
from stainfuser.logs import LOGGER

KEPT = 2
DAMAGED = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Checkpoint:
    """State after `step` optimisation steps."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[str, Any]
    rows: list[list[Any]]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write ``folder/step_<n>`` whole or not at all, and drop all but the last two."""
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{checkpoint.step:08d}"
    partial = folder / f".partial_{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_file(_contiguous(checkpoint.weights), partial / "weights.safetensors")
    save_file(_contiguous(checkpoint.average), partial / "average.safetensors")
    torch.save(checkpoint.optimizer, partial / "optimizer.pt")
    write_json(partial / "state.json", {"step": checkpoint.step, "rows": checkpoint.rows})
    for path in partial.iterdir():
        sync_file(path)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    for old in _saved(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load_last_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint that can be read, or None."""
    for path in reversed(_saved(folder)):
        try:
            state = read_json(path / "state.json")
            return Checkpoint(
                step=state["step"],
                weights=load_file(path / "weights.safetensors"),
                average=load_file(path / "average.safetensors"),
                optimizer=torch.load(path / "optimizer.pt", weights_only=True),
                rows=state["rows"],
            )
        except DAMAGED as error:
            LOGGER.warning("%s: damaged checkpoint left out (%s)", path, error)
    return None


def fingerprint_weights(module: nn.Module) -> str:
    """Return one SHA-256 over names and values of a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _saved(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*")) if folder.is_dir() else []


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
