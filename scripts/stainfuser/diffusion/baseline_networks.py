"""Three trained normalisers of the literature made small, each with its loss.

They are called "-like": the ideas are the papers', the sizes, schedules and details are ours, and
each docstring says what is simplified. All learn from unpaired crops, (N, 3, H, W) float32 RGB in
[-1, 1]: of the slides to be normalised, and of one target image.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stainfuser.diffusion.augmentation import draw_stain_maps
from stainfuser.nn.stain_denoiser import (
    DenoiserParams,
    StainDenoiser,
    noised,
    step_to,
    structure_of,
)
from stainfuser.nn.translators import (
    PatchDiscriminator,
    Translator,
    TranslatorParams,
    judged_frozen,
)

# Weights of the cycle and of the identity beside the adversarial loss: half of CycleGAN's, so that
# few steps go far enough.
CYCLE, SAME = 5.0, 2.0
# Pix2Pix' scale of the supervised loss, lowered to the size of the others.
SUPERVISED, CONSISTENT, HISTOGRAM = 10.0, 5.0, 1.0
# How strongly inputs are recoloured (1: as wide as laboratories).
PERTURBATION = 1.0
# Weight of the cycle beside the two denoising losses.
DIFFUSION_CYCLE = 0.5
# Levels of a histogram that are compared.
QUANTILES = 64
SOURCE, TARGET = 0, 1


@dataclass(frozen=True)
class BaselineParams:
    """Sizes of a baseline; `sampling_steps` and `ensemble` are the diffusion baseline's alone."""

    kind: str
    channels: int
    blocks: int
    sampling_steps: int
    ensemble: int

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class CaganLike(nn.Module):
    """Colour-adaptive GAN with two decoders, after Cong et al. 2022 (CAGAN).

    "Colour adaptive generative networks for stain normalisation of histopathology images", Medical
    Image Analysis 82, 102580. As there: inputs are recoloured at random, so that the generator
    does not depend on the stain it is given; target tiles are restored from recoloured ones, which
    is supervised; on source tiles the two decoders, here under two recolourings, have to agree; a
    discriminator and a histogram loss hold results to the target's colours. Simplified: a small
    generator, recolouring by random smooth maps in optical density, per-channel quantiles in place
    of a histogram, one target image as the target domain.
    """

    def __init__(self, params: BaselineParams) -> None:
        super().__init__()
        self.generator = Translator(TranslatorParams(params.channels, params.blocks, decoders=2))
        self.judge = PatchDiscriminator(2 * params.channels)

    def loss(self, source: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
        """Return generator's and discriminator's loss; neither has gradients for the other."""
        restored = self.generator(perturbed(target, rng))
        supervised = sum(F.l1_loss(image, target) for image in restored)
        first = self.generator(perturbed(source, rng))
        second = self.generator(perturbed(source, rng))
        consistent = F.l1_loss(first[0], second[1]) + F.l1_loss(first[1], second[0])
        made = torch.cat([first[0], second[1]])
        fooled = _fooled(self.judge, made)
        histogram = _quantile_distance(made, target)
        learned = SUPERVISED * supervised + CONSISTENT * consistent + HISTOGRAM * histogram
        return learned + fooled + _mistaken(self.judge, target, made)

    def translate(self, source: Tensor) -> Tensor:
        """Return the mean of both decoders, (N, 3, H, W)."""
        return torch.stack(self.generator(source)).mean(dim=0)


class CycleGanLike(nn.Module):
    """CycleGAN between the slides' stains and the target's, after Shaban et al. 2019 (StainGAN).

    "StainGAN: stain style transfer for digital histological images", ISBI 2019, arXiv 1804.01601;
    Zhu et al. 2017 with least-squares losses, cycles and identity. Simplified: small generators
    with skips whose answer is added to the input, discriminators of 34 px without normalisation,
    no buffer of older images.
    """

    def __init__(self, params: BaselineParams) -> None:
        super().__init__()
        sizes = TranslatorParams(params.channels, params.blocks, decoders=1)
        self.generator, self.back = Translator(sizes), Translator(sizes)
        self.judge = PatchDiscriminator(2 * params.channels)
        self.source_judge = PatchDiscriminator(2 * params.channels)

    def loss(self, source: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
        """Return generators' and discriminators' loss; neither have gradients for the others."""
        (to_target,), (to_source,) = self.generator(source), self.back(target)
        cycle = F.l1_loss(self.back(to_target)[0], source)
        cycle = cycle + F.l1_loss(self.generator(to_source)[0], target)
        same = F.l1_loss(self.generator(target)[0], target)
        same = same + F.l1_loss(self.back(source)[0], source)
        fooled = _fooled(self.judge, to_target) + _fooled(self.source_judge, to_source)
        mistaken = _mistaken(self.judge, target, to_target)
        mistaken = mistaken + _mistaken(self.source_judge, source, to_source)
        return CYCLE * cycle + SAME * same + fooled + mistaken

    def translate(self, source: Tensor) -> Tensor:
        """Return the forward generator's answer, (N, 3, H, W)."""
        return self.generator(source)[0]


class StainDiffLike(nn.Module):
    """Cycle-consistent diffusion between two stains, after Shen and Ke 2023 (StainDiff).

    "StainDiff: transfer stain styles of histology images with denoising diffusion probabilistic
    models and self-ensemble", MICCAI 2023. As there: denoising in pixels, conditioned on the image
    to be translated, learned from unpaired images by a cycle: what is translated one way has to be
    denoised to the original when translated back; the result is the mean of several draws.
    Simplified: one network with a stain label in place of two; the condition is the tissue's
    structure with standardised colours, so that each stain is also learned from its own images;
    the cycle passes through a one-step estimate; the image is predicted in place of the noise; few
    deterministic steps.
    """

    def __init__(self, params: BaselineParams) -> None:
        super().__init__()
        self.params = params
        width = 2 * params.channels
        self.generator = StainDenoiser(DenoiserParams(width, params.blocks))

    def loss(self, source: Tensor, target: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the denoising losses of both stains, on own and on translated structure."""
        total = source.new_zeros(())
        for image, label in ((source, SOURCE), (target, TARGET)):
            structure = structure_of(image)
            total = total + self._denoised(image, structure, label, rng)
            there = self._first_guess(structure, 1 - label, rng)
            back = self._denoised(image, structure_of(there), label, rng)
            total = total + DIFFUSION_CYCLE * back
        return total

    def translate(self, source: Tensor) -> Tensor:
        """Return the mean of `ensemble` draws; their noise is the same for every image."""
        structure = structure_of(source)
        draws = [self._sampled(structure, member) for member in range(self.params.ensemble)]
        return torch.stack(draws).mean(dim=0)

    def _denoised(
        self, image: Tensor, structure: Tensor, label: int, rng: np.random.Generator
    ) -> Tensor:
        times = torch.from_numpy(rng.random(len(image), "float32")).to(image.device)
        noisy = noised(image, _noise_like(image, rng), times)
        return F.l1_loss(self._denoise(noisy, structure, times, label), image)

    def _first_guess(self, structure: Tensor, label: int, rng: np.random.Generator) -> Tensor:
        """Return the image that pure noise is denoised to in one step."""
        noise = _noise_like(structure, rng)
        times = torch.ones(len(noise), device=noise.device)
        return self._denoise(noise, structure, times, label)

    def _denoise(self, noisy: Tensor, structure: Tensor, times: Tensor, label: int) -> Tensor:
        labels = torch.full((len(noisy),), label, device=noisy.device)
        return self.generator(noisy, structure, times, labels)

    def _sampled(self, structure: Tensor, member: int) -> Tensor:
        rng = np.random.default_rng(member)
        image = _noise_like(structure[:1], rng).expand_as(structure)
        levels = torch.linspace(1.0, 0.0, self.params.sampling_steps + 1, device=image.device)
        for now, then in itertools.pairwise(levels):
            times = now.expand(len(image))
            clean = self._denoise(image, structure, times, TARGET)
            image = step_to(image, clean, times, then.expand(len(image)))
        return image


NETWORKS: dict[str, type[CaganLike | CycleGanLike | StainDiffLike]] = {
    "cagan_like": CaganLike,
    "cyclegan_like": CycleGanLike,
    "staindiff_like": StainDiffLike,
}


def build_network(params: BaselineParams, seed: int) -> nn.Module:
    """Return a baseline's networks, randomly initialised from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return NETWORKS[params.kind](params)


def perturbed(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Recolour each of (N, 3, H, W) images in [-1, 1] by a random smooth map of its own."""
    maps = draw_stain_maps(rng, len(images), probability=1.0, strength=PERTURBATION)
    return (maps((images.cpu() + 1) / 2) * 2 - 1).to(images.device)


def _fooled(judge: nn.Module, made: Tensor) -> Tensor:
    return (judged_frozen(judge, made) - 1).square().mean()


def _mistaken(judge: nn.Module, real: Tensor, made: Tensor) -> Tensor:
    made_up = judge(made.detach()).square().mean()
    return 0.5 * ((judge(real) - 1).square().mean() + made_up)


def _quantile_distance(made: Tensor, real: Tensor) -> Tensor:
    """Return the mean distance of the quantiles of each channel over two batches."""
    levels = torch.linspace(0.01, 0.99, QUANTILES, device=made.device)
    quantiles = [
        torch.quantile(images.transpose(0, 1).flatten(1), levels, dim=1) for images in (made, real)
    ]
    return F.l1_loss(*quantiles)


def _noise_like(images: Tensor, rng: np.random.Generator) -> Tensor:
    return torch.from_numpy(rng.standard_normal(images.shape, "float32")).to(images.device)
