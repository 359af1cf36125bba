"""Neural style transfer with Gram matrices (Gatys et al. 2016), of pixels or of a colour operator.

Both losses are relative: content to the energy of the source's features, style, layer by layer, to
that of the target's Gram matrix. So their weights mean the same for every network and image.
Optimising pixels can do what colour alone cannot, and invents tissue where features are weak;
optimising the 30 numbers of a quadratic map in optical density cannot touch structure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.errors import ConfigError, TrainingError
from stainfuser.nn.feature_networks import FeatureNetwork
from stainfuser.nn.od_torch import QUADRATIC_FEATURES, apply_operator

OPTIMIZERS = ("lbfgs", "adam")
# Adam's steps: grey levels / 255 of a pixel, coefficients of an operator.
ADAM_PIXEL_RATE, ADAM_OPERATOR_RATE = 0.02, 0.02
# Pull of an operator's 30 numbers to the identity, in units of the losses.
OPERATOR_RIDGE = 1e-2

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class GramStyleOptions:
    """How the losses are weighed and brought down; see the keys of the section `pairs`."""

    optimizer: str
    iterations: int
    content_weight: float
    style_weight: float


class GramStyle:
    """Style transfer to one target, whose Gram matrices are computed once.

    Parameters
    ----------
    network
        Features whose statistics are the style.
    target
        (H, W, 3) uint8 RGB.
    options
        Optimiser, iterations and weights.

    Raises
    ------
    ConfigError
        An unknown optimiser.
    """

    def __init__(self, network: FeatureNetwork, target: Image, options: GramStyleOptions) -> None:
        if options.optimizer not in OPTIMIZERS:
            where, known = "configuration key pairs.optimizer", " or ".join(OPTIMIZERS)
            raise ConfigError(where, f"it is {options.optimizer!r}", f"use {known}")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.network = network.to(device)
        self.options = options
        with torch.no_grad():
            features = self.network(self._to_tensor(target))
            style_layers = network.architecture.style
            self.target_grams = {name: gram_matrix(features[name]) for name in style_layers}

    def pixels(self, source: Image) -> Image:
        """Return (H, W, 3) uint8 `source`, its pixels optimised from itself."""
        start = self._to_tensor(source)
        pixels = (start / 255.0).clone().requires_grad_()
        loss = self._losses(start)
        self._minimize(pixels, lambda: loss(pixels * 255.0), ADAM_PIXEL_RATE)
        return self._to_image(pixels.detach() * 255.0)

    def operator(self, source: Image) -> Image:
        """Return (H, W, 3) uint8 `source`, recoloured by an optimised quadratic operator."""
        start = self._to_tensor(source)
        channels_last = start.permute(0, 2, 3, 1)
        identity = torch.zeros(1, QUADRATIC_FEATURES, 3, device=start.device)
        identity[0, 1:4] = torch.eye(3)
        coefficients = identity.clone().requires_grad_()
        loss = self._losses(start)

        def recoloured() -> Tensor:
            return apply_operator(coefficients, channels_last).permute(0, 3, 1, 2)

        def objective() -> Tensor:
            ridge = (coefficients - identity).square().sum()
            return loss(recoloured()) + OPERATOR_RIDGE * ridge

        self._minimize(coefficients, objective, ADAM_OPERATOR_RATE)
        with torch.no_grad():
            return self._to_image(recoloured())

    def _losses(self, start: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the function (1, 3, H, W) RGB in [0, 255] → weighted content and style loss."""
        content_layer = self.network.architecture.content
        with torch.no_grad():
            content = self.network(start)[content_layer]

        def loss(rgb: Tensor) -> Tensor:
            features = self.network(rgb)
            styles = [
                relative_error(gram_matrix(features[name]), gram)
                for name, gram in self.target_grams.items()
            ]
            style = torch.stack(styles).mean()
            content_loss = relative_error(features[content_layer], content)
            return self.options.content_weight * content_loss + self.options.style_weight * style

        return loss

    def _minimize(self, variable: Tensor, objective: Callable[[], Tensor], rate: float) -> None:
        """Bring `objective` down by changing `variable` in place."""
        optimizer: torch.optim.Optimizer
        if self.options.optimizer == "lbfgs":
            optimizer = torch.optim.LBFGS(
                [variable],
                max_iter=self.options.iterations,
                max_eval=self.options.iterations * 5 // 4,
                # Gradients of means over many pixels are tiny without being near a minimum.
                tolerance_grad=0.0,
                tolerance_change=0.0,
                history_size=20,
                line_search_fn="strong_wolfe",
            )
            steps = 1
        else:
            optimizer, steps = torch.optim.Adam([variable], rate), self.options.iterations

        def closure() -> Tensor:
            optimizer.zero_grad()
            value = objective()
            value.backward()
            return value

        for _ in range(steps):
            optimizer.step(closure)
        if not torch.isfinite(variable).all():
            remedy = "lower pairs.style_weight, or use pairs.optimizer adam"
            raise TrainingError("style transfer", "the optimisation ran off to infinity", remedy)

    def _to_tensor(self, image: Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].contiguous()
        return pixels.float().to(next(self.network.buffers()).device)

    @staticmethod
    def _to_image(rgb: Tensor) -> Image:
        return rgb[0].clamp(0, 255).round().byte().permute(1, 2, 0).cpu().numpy().copy()


def gram_matrix(features: Tensor) -> Tensor:
    """Return the mean products of channels, (N, C, C), of (N, C, H, W) features."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def relative_error(values: Tensor, reference: Tensor) -> Tensor:
    """Return the mean square of the difference over the mean square of the reference."""
    return (values - reference).square().mean() / reference.square().mean().clamp(min=1e-12)
