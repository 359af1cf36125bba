"""The target as the model sees it: a weighted set of latent tokens and statistics."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stainfuser.nn.class_statistics import ClassStatistics
from stainfuser.nn.stain_statistics import StainStatistics

# Lloyd iterations; more change the centroids by less than the noise between crops of a target.
ITERATIONS = 5
# Tokens the centroids are computed from, taken at equal distances over the whole image.
SAMPLE_TOKENS = 4096


@dataclass(frozen=True)
class StainTarget:
    """Encoded target images; `pipe.encode_target` makes it, `pipe(...)` takes it.

    tokens
        (N, K, C) float32 latents of the targets, in no order.
    token_bias
        (N, 1, K) log of how many tokens each stands for; None if each stands for itself.
    statistics
        Stain statistics of the N targets.
    classes
        (N, ...) class statistics, of a model with an operator head; else None. They stay on the
        CPU.
    """

    tokens: Tensor
    token_bias: Tensor | None
    statistics: StainStatistics
    classes: ClassStatistics | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def select(self, index: Tensor | list[int]) -> StainTarget:
        """Return the chosen targets, in that order, repeats allowed."""
        bias = None if self.token_bias is None else self.token_bias[index]
        classes = self.classes
        if classes is not None:
            classes = classes.each(lambda part: part[index])
        return StainTarget(self.tokens[index], bias, self.statistics.select(index), classes)

    def to(self, device: torch.device | str) -> StainTarget:
        """Return the target on a device."""
        bias = None if self.token_bias is None else self.token_bias.to(device)
        return StainTarget(self.tokens.to(device), bias, self.statistics.to(device), self.classes)


def flatten_tokens(latents: Tensor) -> Tensor:
    """(N, C, h, w) latents → (N, h * w, C) tokens."""
    return latents.flatten(2).transpose(1, 2)


def reduce_tokens(tokens: Tensor, count: int | None) -> tuple[Tensor, Tensor | None]:
    """Summarise (N, L, C) tokens by k-means: (N, K, C) centroids, (N, 1, K) log counts.

    With a `count` of None they stay as they are, each standing for itself.

    Lloyd's algorithm from evenly spaced ranks along the channel of largest variance, so that
    nothing is drawn at random. Counts are scaled to the full L. A cluster that ran empty keeps its
    centre and a bias of -1e4, which attention cannot see.
    """
    if count is None:
        return tokens, None
    everything = tokens.shape[1]
    tokens = _sampled(tokens)
    count = min(count, tokens.shape[1])
    centres = _initial_centres(tokens, count)
    for _ in range(ITERATIONS):
        member = _membership(tokens, centres)
        counts = member.sum(dim=1)
        means = member.transpose(1, 2) @ tokens / counts.clamp(min=1.0)[..., None]
        centres = torch.where(counts[..., None] > 0, means, centres)
    share = _membership(tokens, centres).sum(dim=1) * (everything / tokens.shape[1])
    bias = torch.where(share > 0, share.clamp(min=1e-4).log(), torch.full_like(share, -1e4))
    return centres, bias[:, None]


def _sampled(tokens: Tensor) -> Tensor:
    """Take at most `SAMPLE_TOKENS` at equal distances."""
    length = tokens.shape[1]
    if length <= SAMPLE_TOKENS:
        return tokens
    index = torch.linspace(0, length - 1, SAMPLE_TOKENS, dtype=torch.float64).round().long()
    return tokens[:, index.to(tokens.device)]


def _initial_centres(tokens: Tensor, count: int) -> Tensor:
    channel = tokens.var(dim=1, unbiased=False).argmax(dim=1)
    key = tokens.gather(2, channel[:, None, None].expand(-1, tokens.shape[1], 1))[..., 0]
    order = key.argsort(dim=1, stable=True)
    rank = ((torch.arange(count) + 0.5) * tokens.shape[1] / count).long().to(tokens.device)
    return tokens.gather(1, order[:, rank][..., None].expand(-1, -1, tokens.shape[2]))


def _membership(tokens: Tensor, centres: Tensor) -> Tensor:
    """Return (N, L, K) 0/1: the nearest centre of every token."""
    # |t|^2 is the same for all centres and left out.
    distance = centres.square().sum(-1)[:, None] - 2.0 * tokens @ centres.transpose(1, 2)
    member = torch.zeros_like(distance)
    return member.scatter_(2, distance.argmin(dim=2, keepdim=True), 1.0)
