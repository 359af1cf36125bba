"""Weights of feature networks from the files they are published in, as name → tensor."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stainfuser.errors import InputError

_REMEDY = "copy or download it again"
# Weights are float32; every value of the compressed file is one of 256 per layer.
CODEBOOK_SIZE = 256
# SqueezeNet v1.0: outputs, inputs, kernel of conv1 and conv10, and (inputs, squeeze, expand).
_CONV1, _CONV10 = (96, 3, 7), (1000, 512, 1)
_FIRES = (
    (96, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128),
    (256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256),
)  # fmt: skip


def read_state(network: str, path: Path) -> dict[str, Tensor]:
    """Return the weights in a file: ``<layer>.weight`` (O, I, K, K) and ``<layer>.bias`` (O,).

    Raises
    ------
    InputError
        The file is missing, damaged, holds more than tensors, or its suffix is none of the
        network's.
    """
    readers: dict[str, dict[str, Callable[[Path], dict[str, Tensor]]]] = {
        "vgg19": {".pth": _read_torch, ".pt": _read_torch, ".safetensors": _read_safetensors},
        "squeezenet": {".h5": _read_keras, ".net": _read_compressed},
        "inception": {".pth": _read_torch, ".pt": _read_torch, ".safetensors": _read_safetensors},
    }
    if not path.is_file():
        remedy = "check the configuration key that names it"
        raise InputError(path, f"there is no such file of {network} weights", remedy)
    reader = readers[network].get(path.suffix.lower())
    if reader is None:
        known = ", ".join(readers[network])
        raise InputError(path, f"{network} weights are read from {known}", "give such a file")
    return reader(path)


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # torch says the same of code in a pickle and of bytes that are none.
        if zipfile.is_zipfile(path) or path.read_bytes()[:1] == pickle.PROTO:
            wrong = "it holds more than tensors (code could run when it is opened)"
            raise InputError(path, wrong, "save it again as a plain state dict") from None
        raise InputError(path, "not an intact file of torch weights", _REMEDY) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(path, "it holds no state dict", "save the model's state_dict()")
    return {name: tensor.float() for name, tensor in state.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from None


def _read_keras(path: Path) -> dict[str, Tensor]:
    """Read SqueezeNet v1.1 as Keras stores it: kernels (K, K, I, O) beside biases (O,)."""
    import h5py

    state: dict[str, Tensor] = {}

    def collect(name: str, item: object) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        parts = name.split("/")
        layer = "/".join(parts[:2]) if parts[0].startswith("fire") else parts[0]
        values = torch.from_numpy(item[:].astype(np.float32))
        if values.ndim == 4:
            state[f"{layer}.weight"] = values.permute(3, 2, 0, 1).contiguous()
        else:
            state[f"{layer}.bias"] = values

    try:
        with h5py.File(path, "r") as file:
            file.visititems(collect)
    except (OSError, RuntimeError) as error:
        raise _damaged(path, error) from None
    return state


def _read_compressed(path: Path) -> dict[str, Tensor]:
    """Decode SqueezeNet v1.0 as Deep Compression stores it (Han et al. 2016).

    The file begins with the number of stored values of every layer (uint32). Then, per layer:
    a codebook of 256 float32, the bias (float32), a code per stored value (uint8), and the gap
    before each value (4 bit, the lower half of a byte first). Gaps over 15 are bridged by stored
    zeros; code 0 is zero.
    """
    content = path.read_bytes()
    layers = _compressed_layers()
    try:
        counts = np.frombuffer(content, np.uint32, len(layers))
        start = counts.nbytes
        state: dict[str, Tensor] = {}
        for (name, shape), count in zip(layers, counts.tolist(), strict=True):
            parts = []
            for kind, length in (
                (np.float32, CODEBOOK_SIZE),
                (np.float32, shape[0]),
                (np.uint8, count),
                (np.uint8, (count + 1) // 2),
            ):
                parts.append(np.frombuffer(content, kind, length, start))
                start += parts[-1].nbytes
            codebook, bias, codes, packed = parts
            state[f"{name}.weight"] = _unpack(codebook, codes, packed, shape)
            state[f"{name}.bias"] = torch.from_numpy(bias.copy())
        if start != len(content):
            raise ValueError(f"{len(content)} bytes, {start} expected")
    except (ValueError, IndexError) as error:
        raise _damaged(path, error) from None
    return state


def _unpack(
    codebook: np.ndarray, codes: np.ndarray, packed: np.ndarray, shape: tuple[int, ...]
) -> Tensor:
    gaps = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)[: len(codes)]
    places = np.cumsum(gaps.astype(np.int64) + 1) - 1
    flat = np.zeros(int(np.prod(shape)), np.float32)
    flat[places] = codebook[codes]
    return torch.from_numpy(flat.reshape(shape))


def _compressed_layers() -> list[tuple[str, tuple[int, ...]]]:
    """Return name and shape (O, I, K, K) of the 26 convolutions in the order of the file."""
    layers = [("conv1", (*_CONV1, _CONV1[2]))]
    for number, (inputs, squeeze, expand) in enumerate(_FIRES, 2):
        layers += [
            (f"fire{number}/squeeze1x1", (squeeze, inputs, 1, 1)),
            (f"fire{number}/expand1x1", (expand, squeeze, 1, 1)),
            (f"fire{number}/expand3x3", (expand, squeeze, 3, 3)),
        ]
    return [*layers, ("conv10", (*_CONV10, _CONV10[2]))]


def _damaged(path: Path, error: Exception) -> InputError:
    first_line = (str(error).splitlines() or ["empty"])[0]
    return InputError(path, f"the file of weights is damaged ({first_line})", _REMEDY)
