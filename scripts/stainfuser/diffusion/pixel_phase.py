"""Third phase: the one network call is tuned through the decoder, on pixels.

The latent objective knows nothing of colour as people see it nor of structure. As in end-to-end
fine-tuning (Garcia et al., arXiv 2409.11355) the network makes the one step that inference makes,
the frozen decoder turns it into pixels, and these are compared with the truth: in CIE Lab (CIE94),
in RGB, and by the gradients of the luminance, so that no structure is invented or lost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stainfuser.diffusion.diffusion_phase import conditions, noised
from stainfuser.diffusion.examples import Examples
from stainfuser.diffusion.objectives import Objective
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.nn.od_torch import cie94_square, luminance_gradients, rgb_to_lab
from stainfuser.seeds import generator

# Weights of the parts of the loss, that of the colour difference being 1; gradients are in grey
# levels, and where the truth has them they are to be met.
PIXEL_WEIGHT, GRADIENT_WEIGHT, STRUCTURE_WEIGHT = 0.04, 0.1, 20.0
# Gradient correlation with the source below which a result is punished.
WANTED_STRUCTURE = 0.985
# The last step of the schedule, where one-step inference begins.
LAST = 0.9999


def pixel_loss(
    pipeline: StainFuserPipeline, objective: Objective, examples: Examples, seed: int
) -> Callable[[nn.Module, int, int], Tensor]:
    """Return the loss of a step of fine-tuning."""
    scheduler = objective.make_scheduler()

    def loss_of(denoiser: nn.Module, step: int, stream: int) -> Tensor:
        batch = examples.draw(step, stream).to(pipeline.unet.device)
        rng = generator(seed, "pixel noise", step, stream)
        with torch.no_grad():
            last = torch.full((len(batch.source),), LAST)
            example = noised(pipeline, objective, scheduler, batch, rng, last)
        prediction = denoiser(example.sample, example.timesteps, *conditions(pipeline, batch))
        clean = objective.one_step(example, prediction.float(), scheduler)
        decoded = pipeline.vae.decode(clean / pipeline.vae.config.scaling_factor).sample.float()
        result, truth, source = (
            _pixels(x) for x in (decoded / 2.0 + 0.5, batch.stylized, batch.source)
        )
        return sum(image_losses(result, truth, source).values())

    return loss_of


def image_losses(result: Tensor, truth: Tensor, source: Tensor) -> dict[str, Tensor]:
    """Return the weighted parts of the loss of (N, H, W, 3) RGB in [0, 255]."""
    shown = result.clamp(0.0, 255.0)
    square = cie94_square(rgb_to_lab(shown), rgb_to_lab(truth))
    slopes = zip(luminance_gradients(result), luminance_gradients(truth), strict=True)
    return {
        # Smooth at zero: the last half unit of difference is below what anyone sees.
        "colour": (square + 0.25).sqrt().mean(),
        "pixel": PIXEL_WEIGHT * (result - truth).abs().mean(),
        "gradient": GRADIENT_WEIGHT * sum((a - b).abs().mean() for a, b in slopes),
        "structure": STRUCTURE_WEIGHT
        * F.relu(WANTED_STRUCTURE - gradient_agreement(result, source)).mean(),
    }


def gradient_agreement(result: Tensor, source: Tensor) -> Tensor:
    """Return (N,): correlation of the luminance gradients of (N, H, W, 3) images."""
    before, after = (
        torch.cat([slope.flatten(1) for slope in luminance_gradients(rgb)], dim=1)
        for rgb in (source, result)
    )
    centred = [x - x.mean(dim=1, keepdim=True) for x in (before, after)]
    # An image without structure agrees with anything.
    flat = centred[0].square().mean(dim=1) < 1e-3
    return torch.where(flat, 1.0, F.cosine_similarity(*centred, dim=1))


def _pixels(rgb: Tensor) -> Tensor:
    """(N, 3, H, W) in [0, 1] → (N, H, W, 3) in [0, 255]."""
    return rgb.movedim(1, -1) * 255.0
