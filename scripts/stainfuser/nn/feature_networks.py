"""Feature networks of neural style transfer: VGG19 and SqueezeNet with weights from a user's file.

Only the convolutions that style transfer looks at are built. Weights are never unpickled beyond
tensors. Convolutions mirror the image at its rim instead of padding it with black, and pooling
averages, as Gatys et al. (2016) advise; neither changes the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from stainfuser.errors import ConfigError, InputError
from stainfuser.nn.feature_weights import read_state

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Conv:
    """A convolution with ReLU: name of its features, key of its weights, shape and stride."""

    name: str
    key: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1


@dataclass(frozen=True)
class Fire:
    """A fire module (Iandola et al. 2016): squeeze 1x1, then expand 1x1 and 3x3 side by side."""

    name: str
    inputs: int
    squeeze: int
    expand: int


@dataclass(frozen=True)
class Pool:
    """Average pooling with stride 2."""

    kernel: int


Layer = Conv | Fire | Pool


@dataclass(frozen=True)
class Architecture:
    """Layers in order, the layers whose Gram matrices are style, and the one that is content.

    Attributes
    ----------
    mean, std
        Per channel, of RGB in [0, 255]: what the network was trained with.
    is_bgr
        True if it was trained on blue first.
    """

    layers: tuple[Layer, ...]
    style: tuple[str, ...]
    content: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_bgr: bool


def _vgg19() -> Architecture:
    """VGG19 (Simonyan and Zisserman 2015) up to conv5_1, keys as torchvision writes them."""
    layers: list[Layer] = []
    inputs, index = 3, 0
    for block, (outputs, convolutions) in enumerate([(64, 2), (128, 2), (256, 4), (512, 4)], 1):
        for number in range(1, convolutions + 1):
            layers.append(Conv(f"conv{block}_{number}", f"features.{index}", inputs, outputs))
            inputs, index = outputs, index + 2
        layers.append(Pool(2))
        index += 1
    layers.append(Conv("conv5_1", f"features.{index}", inputs, 512))
    return Architecture(
        layers=tuple(layers),
        style=("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"),
        content="conv4_2",
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        is_bgr=False,
    )


def _squeezenet(outputs: int, kernel: int, pools_after: tuple[str, ...]) -> Architecture:
    """SqueezeNet up to fire5, on BGR less the ImageNet mean."""
    layers: list[Layer] = [Conv("conv1", "conv1", 3, outputs, kernel, 2), Pool(3)]
    sizes = [(16, 64), (16, 64), (32, 128), (32, 128)]
    inputs = outputs
    for number, (squeeze, expand) in enumerate(sizes, 2):
        layers.append(Fire(f"fire{number}", inputs, squeeze, expand))
        if f"fire{number}" in pools_after:
            layers.append(Pool(3))
        inputs = 2 * expand
    return Architecture(
        layers=tuple(layers),
        style=("conv1", "fire2", "fire3", "fire4"),
        content="fire4",
        mean=(123.0, 117.0, 104.0),
        std=(1.0, 1.0, 1.0),
        is_bgr=True,
    )


# The kind of weights decides between the two published SqueezeNets: the Keras file holds v1.1,
# the compressed file of Han et al. v1.0.
ARCHITECTURES = {
    "vgg19": _vgg19(),
    "squeezenet": _squeezenet(64, 3, ("fire3", "fire5")),
    "squeezenet_v1_0": _squeezenet(96, 7, ("fire4",)),
}
NETWORKS = ("vgg19", "squeezenet")


class FeatureNetwork(nn.Module):
    """Features of images at named layers, each after its ReLU.

    Parameters
    ----------
    architecture
        What is built.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.blocks = nn.ModuleDict(
            {layer.name: _block(layer) for layer in architecture.layers if layer.__class__ != Pool}
        )
        self.register_buffer("mean", torch.tensor(architecture.mean).view(1, 3, 1, 1), False)
        self.register_buffer("std", torch.tensor(architecture.std).view(1, 3, 1, 1), False)
        self.requires_grad_(False)

    def forward(self, rgb: Tensor) -> dict[str, Tensor]:
        """Return layer → features of (N, 3, H, W) RGB in [0, 255], H and W at least 32."""
        features = (rgb - self.mean) / self.std
        if self.architecture.is_bgr:
            features = features.flip(1)
        found = {}
        for layer in self.architecture.layers:
            if isinstance(layer, Pool):
                features = nn.functional.avg_pool2d(features, layer.kernel, 2, ceil_mode=True)
            else:
                features = self.blocks[layer.name](features)
                found[layer.name] = features
        return found


class FireBlock(nn.Module):
    """See `Fire`."""

    def __init__(self, layer: Fire) -> None:
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(layer.inputs, layer.squeeze, 1)
        self.expand1x1 = nn.Conv2d(layer.squeeze, layer.expand, 1)
        self.expand3x3 = nn.Conv2d(
            layer.squeeze, layer.expand, 3, padding=1, padding_mode="reflect"
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, 2 x expand, H, W)."""
        squeezed = self.squeeze1x1(features).relu()
        return torch.cat([self.expand1x1(squeezed), self.expand3x3(squeezed)], dim=1).relu()


def load_feature_network(
    name: str, path: str | Path | None, *, allow_random_weights: bool = False, seed: int = 0
) -> FeatureNetwork:
    """Build a feature network with the weights of a file.

    Parameters
    ----------
    name
        "vgg19" or "squeezenet".
    path
        vgg19: torchvision's state dict as .pth/.pt or .safetensors; squeezenet: the Keras file
        without top (v1.1, .h5) or the compressed v1.0 (.net); None: no file.
    allow_random_weights, seed
        Whether random weights will do where there is no file, and their seed.

    Raises
    ------
    ConfigError
        An unknown name.
    InputError
        No weights, or a file that is missing, damaged, unsafe or of another network.
    """
    if name not in NETWORKS:
        known = " or ".join(NETWORKS)
        raise ConfigError(
            "configuration key pairs.feature_network", f"it is {name!r}", f"use {known}"
        )
    if path is None and not allow_random_weights:
        wrong = f"style transfer needs the weights of {name} and no file is given"
        remedy = "give a file of weights, or set pairs.method to class_guided"
        raise InputError("configuration key pairs.feature_weights", wrong, remedy)
    is_v1_0 = name == "squeezenet" and path is not None and Path(path).suffix == ".net"
    network = FeatureNetwork(ARCHITECTURES["squeezenet_v1_0" if is_v1_0 else name])
    if path is None:
        _randomize(network, seed)
    else:
        _fill(network, read_state(name, Path(path)), path, name)
    return network.eval()


def _block(layer: Conv | Fire) -> nn.Module:
    if isinstance(layer, Fire):
        return FireBlock(layer)
    padding = layer.kernel // 2
    convolution = nn.Conv2d(
        layer.inputs, layer.outputs, layer.kernel, layer.stride, padding, padding_mode="reflect"
    )
    return nn.Sequential(convolution, nn.ReLU())


def _fill(network: FeatureNetwork, state: Weights, path: str | Path, name: str) -> None:
    """Copy the weights a network needs; others in the file are left."""
    for layer in network.architecture.layers:
        if isinstance(layer, Conv):
            _copy(network.blocks[layer.name][0], state, layer.key, path, name)
        elif isinstance(layer, Fire):
            for part, module in network.blocks[layer.name].named_children():
                _copy(module, state, f"{layer.name}/{part}", path, name)


def _copy(module: nn.Module, state: Weights, key: str, path: str | Path, name: str) -> None:
    for part, parameter in module.named_parameters():
        stored = state.get(f"{key}.{part}")
        if stored is None or stored.shape != parameter.shape:
            found = "is missing" if stored is None else f"has the shape {tuple(stored.shape)}"
            wrong = f"not the weights of {name}: {key}.{part} {found}"
            wrong += f", expected {tuple(parameter.shape)}"
            raise InputError(
                path, wrong, "give the file named in the documentation of feature_weights"
            )
        parameter.data.copy_(stored)


def _randomize(network: FeatureNetwork, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=generator)
            nn.init.zeros_(module.bias)
