"""The Inception v3 whose features Fréchet distances are published on, for weights from a file.

Layout and names of the weights are those of the file that torch-fidelity publishes and torchmetrics
loads (``weights-inception-2015-12-05-6726825d.pth``, converted from TensorFlow): torchvision's
network (Szegedy et al. 2016) with TensorFlow's average pooling, which leaves out padding, and a
last block that takes the maximum. Only what leads to the 2,048 pooled features is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from stainfuser.errors import InputError
from stainfuser.nn.feature_weights import read_state

INPUT_PX, FEATURES = 299, 2048
# A convolution: name, outputs, kernel (height, width), stride, and whether borders are padded.
Conv = tuple[str, int, tuple[int, int], int, bool]


def _conv(name: str, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1) -> Conv:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return name, outputs, size, stride, stride == 1


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, conv: Conv) -> None:
        super().__init__()
        _, outputs, kernel, stride, is_padded = conv
        padding = (kernel[0] // 2, kernel[1] // 2) if is_padded else (0, 0)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, outputs, h, w)."""
        return functional.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side, their outputs in order.

    A branch is a list of convolutions in series; a tuple among them is two convolutions that see
    the same input. `pool` is "average", "maximum" (each with a 1x1 convolution behind it) or
    "stride" (a maximum of every second place, without one).
    """

    def __init__(
        self, inputs: int, branches: Sequence[Sequence[Conv | tuple[Conv, Conv]]], pool: str
    ) -> None:
        super().__init__()
        self.pool = pool
        self._branches: list[list[tuple[str, ...]]] = []
        for branch in branches:
            names, width = [], inputs
            for step in branch:
                parallel = step if isinstance(step[0], tuple) else (step,)
                for conv in parallel:
                    self.add_module(conv[0], ConvUnit(width, conv))
                names.append(tuple(conv[0] for conv in parallel))
                width = sum(conv[1] for conv in parallel)
            self._branches.append(names)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) → (N, outputs, h, w)."""
        return torch.cat([self._run(branch, x) for branch in self._branches], dim=1)

    def _run(self, branch: list[tuple[str, ...]], x: Tensor) -> Tensor:
        if not branch or branch[0] == ("branch_pool",):
            x = self._pooled(x)
        for names in branch:
            x = torch.cat([getattr(self, name)(x) for name in names], dim=1)
        return x

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "stride":
            return functional.max_pool2d(x, 3, 2)
        if self.pool == "maximum":
            return functional.max_pool2d(x, 3, 1, 1)
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _block_a(inputs: int, pooled: int) -> Mixed:
    five = [_conv("branch5x5_1", 48), _conv("branch5x5_2", 64, 5)]
    three = [_conv("branch3x3dbl_1", 64)]
    three += [_conv("branch3x3dbl_2", 96, 3), _conv("branch3x3dbl_3", 96, 3)]
    pool = [_conv("branch_pool", pooled)]
    return Mixed(inputs, [[_conv("branch1x1", 64)], five, three, pool], "average")


def _block_b(inputs: int) -> Mixed:
    three = [_conv("branch3x3dbl_1", 64), _conv("branch3x3dbl_2", 96, 3)]
    three += [_conv("branch3x3dbl_3", 96, 3, 2)]
    return Mixed(inputs, [[_conv("branch3x3", 384, 3, 2)], three, []], "stride")


def _block_c(inputs: int, inner: int) -> Mixed:
    wide, tall = (1, 7), (7, 1)
    seven = [_conv("branch7x7_1", inner), _conv("branch7x7_2", inner, wide)]
    seven += [_conv("branch7x7_3", 192, tall)]
    double = [_conv("branch7x7dbl_1", inner), _conv("branch7x7dbl_2", inner, tall)]
    double += [_conv("branch7x7dbl_3", inner, wide), _conv("branch7x7dbl_4", inner, tall)]
    double += [_conv("branch7x7dbl_5", 192, wide)]
    pool = [_conv("branch_pool", 192)]
    return Mixed(inputs, [[_conv("branch1x1", 192)], seven, double, pool], "average")


def _block_d(inputs: int) -> Mixed:
    three = [_conv("branch3x3_1", 192), _conv("branch3x3_2", 320, 3, 2)]
    seven = [_conv("branch7x7x3_1", 192), _conv("branch7x7x3_2", 192, (1, 7))]
    seven += [_conv("branch7x7x3_3", 192, (7, 1)), _conv("branch7x7x3_4", 192, 3, 2)]
    return Mixed(inputs, [three, seven, []], "stride")


def _block_e(inputs: int, pool: str) -> Mixed:
    wide, tall = (1, 3), (3, 1)
    three = [_conv("branch3x3_1", 384)]
    three += [(_conv("branch3x3_2a", 384, wide), _conv("branch3x3_2b", 384, tall))]
    double = [_conv("branch3x3dbl_1", 448), _conv("branch3x3dbl_2", 384, 3)]
    double += [(_conv("branch3x3dbl_3a", 384, wide), _conv("branch3x3dbl_3b", 384, tall))]
    last = [_conv("branch_pool", 192)]
    return Mixed(inputs, [[_conv("branch1x1", 320)], three, double, last], pool)


class InceptionFeatures(nn.Module):
    """(N, 3, H, W) uint8 RGB → (N, 2048) float32 pooled features of Inception v3."""

    num_features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        valid: Sequence[tuple[str, int, int, int, int, bool]] = (
            ("Conv2d_1a_3x3", 3, 32, 3, 2, False),
            ("Conv2d_2a_3x3", 32, 32, 3, 1, False),
            ("Conv2d_2b_3x3", 32, 64, 3, 1, True),
            ("Conv2d_3b_1x1", 64, 80, 1, 1, False),
            ("Conv2d_4a_3x3", 80, 192, 3, 1, False),
        )
        for name, inputs, outputs, kernel, stride, is_padded in valid:
            unit = ConvUnit(inputs, (name, outputs, (kernel, kernel), stride, is_padded))
            self.add_module(name, unit)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = (
            _block_a(inputs, pooled) for inputs, pooled in ((192, 32), (256, 64), (288, 64))
        )
        self.Mixed_6a = _block_b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (
            _block_c(768, inner) for inner in (128, 160, 160, 192)
        )
        self.Mixed_7a = _block_d(768)
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, "average"), _block_e(2048, "maximum")
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """See the class; images are resized to 299 px with antialiasing, as torchmetrics does."""
        x = functional.interpolate(
            images.float(), (INPUT_PX, INPUT_PX), mode="bilinear", antialias=True
        )
        x = (x - 128) / 128
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
            x = getattr(self, name)(x)
        x = functional.max_pool2d(x, 3, 2)
        x = functional.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean(dim=(2, 3))


def load_inception(path: str | Path) -> InceptionFeatures:
    """Build the network with the weights of a file, which is never unpickled beyond tensors.

    Raises
    ------
    InputError
        The file is missing, damaged, unsafe or of another network.
    """
    network = InceptionFeatures()
    state = read_state("inception", Path(path))
    _check_complete(network.state_dict(), state, path)
    wanted = {name: state[name] for name in network.state_dict() if name in state}
    network.load_state_dict(wanted, strict=False)
    return network.eval()


def _check_complete(
    wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], path: object
) -> None:
    for name, tensor in wanted.items():
        if name.endswith("num_batches_tracked"):
            continue
        found = state.get(name)
        if found is None or found.shape != tensor.shape:
            shape = "is missing" if found is None else f"has the shape {tuple(found.shape)}"
            wrong = f"not the weights of this Inception v3: {name} {shape}"
            wrong += f", expected {tuple(tensor.shape)}"
            remedy = "give weights-inception-2015-12-05-6726825d.pth of torch-fidelity"
            raise InputError(path, wrong, remedy)
