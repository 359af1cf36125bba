"""The operator head: learned tissue classes of source and target, one colour operator per slide.

A small convolutional encoder gives every pixel a soft membership in K learned tissue classes; it
knows the look of the whole slide from a context pooled over all tiles. Each class then has a mean
and a spread of optical density in the source and in the target, and `ClassMatcher` solves for the
operator that carries the ones to the others. No stain matrix and no colour is written down
anywhere: what is learned is which tissue of one slide is the same tissue in another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from stainfuser.errors import InputError
from stainfuser.files import atomic_path, write_json
from stainfuser.nn.class_matcher import ClassMatcher, Match, OperatorHeadParams
from stainfuser.nn.class_statistics import GROUPS, ClassStatistics, class_sums, halved
from stainfuser.nn.colour_moments import (
    RELATIVE_COLOURS,
    TISSUE_MOMENTS,
    ColourMoments,
    tissue_moments,
)
from stainfuser.nn.od_torch import rgb_to_od
from stainfuser.nn.operator_safety import Solution, safe_solution
from stainfuser.nn.tile_chunks import cut_chunks, each_chunk

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
# Chunks whose features are kept for the second look, 7 MB each; others are encoded again.
KEPT_CHUNKS = 24


class Encoded(NamedTuple):
    """Features of (N) tiles at 1/2, 1/4, 1/8 of the resolution, colours at 1/2, context sums."""

    half: Tensor
    quarter: Tensor
    eighth: Tensor
    relative: Tensor
    context: Tensor


class Seen(NamedTuple):
    """Of B slides with n tiles each: logits (B * n, K or 3, h, w), colour moments and look (B)."""

    logits: Tensor
    group_logits: Tensor
    moments: Tensor
    look: Tensor


class OperatorHead(nn.Module):
    """See the module's docstring; shapes: (N, 3, H, W) float32 RGB in [0, 255]."""

    def __init__(self, params: OperatorHeadParams) -> None:
        super().__init__()
        self.params = params
        half, quarter, eighth = params.widths
        self.stem = _block(6 + RELATIVE_COLOURS, half, stride=2)
        self.down_quarter = nn.Sequential(_block(half, quarter, stride=2), _block(quarter, quarter))
        self.down_eighth = nn.Sequential(
            _block(quarter, eighth, stride=2),
            _block(eighth, eighth),
            _block(eighth, eighth, dilation=2),
        )
        self.context = nn.Sequential(
            nn.Linear(2 * eighth + TISSUE_MOMENTS + 3, params.context_width),
            nn.SiLU(),
            nn.Linear(params.context_width, params.context_width),
        )
        self.up_quarter = nn.Conv2d(eighth, quarter, 1)
        self.mix_quarter = _block(quarter, quarter)
        self.film_quarter = nn.Linear(params.context_width, 2 * quarter)
        self.up_half = nn.Conv2d(quarter, half, 1)
        self.mix_half = _block(half, half)
        self.film_half = nn.Linear(params.context_width, 2 * half)
        self.assign = nn.Sequential(
            nn.Conv2d(half + RELATIVE_COLOURS, half + 16, 1),
            nn.SiLU(),
            nn.Conv2d(half + 16, params.classes + len(GROUPS), 1),
        )
        with torch.no_grad():
            # Until it has learned better, everything is tissue.
            self.assign[2].bias[params.classes :] = torch.tensor([-2.0, -2.0, 0.0])
        # Where a colour lies among the slide's colours; `start_classes` gives it a meaning.
        self.assign_colour = nn.Conv2d(RELATIVE_COLOURS, params.classes, 1)
        known = params.context_width + params.classes + len(GROUPS) + TISSUE_MOMENTS
        self.is_he = nn.Sequential(nn.Linear(known, 64), nn.SiLU(), nn.Linear(64, 1))
        self.matcher = ClassMatcher(params)

    # ---- tiles to statistics -------------------------------------------------------------------

    def encode(self, rgb: Tensor, colour: ColourMoments) -> Encoded:
        """Return features and context sums of (N, 3, H, W) tiles, each by itself.

        `colour` (N rows) are the moments of the slides the tiles belong to.
        """
        od = rgb_to_od(rgb)
        relative = colour.standardized(od)
        half = self.stem(torch.cat([rgb / 127.5 - 1.0, od - 0.5, relative], dim=1))
        quarter = self.down_quarter(half)
        eighth = self.down_eighth(quarter)
        seen = [eighth.mean((2, 3)), eighth.square().mean((2, 3)), tissue_moments(od)]
        return Encoded(half, quarter, eighth, halved(relative), torch.cat(seen, dim=1))

    def embed_context(self, context: Tensor, images: Tensor) -> Tensor:
        """Return (..., C): the look of a slide from the sums of its (...) tiles' contexts."""
        eighth = self.params.widths[2]
        mean = context / images[..., None]
        features, squares, tissue = mean.split([eighth, eighth, TISSUE_MOMENTS], dim=-1)
        deviation = (squares - features.square()).clamp(min=1e-6).sqrt()
        colour = ColourMoments(tissue)
        known = [features, deviation, tissue[..., :1], colour.mean, colour.covariance]
        return self.context(torch.cat([*known, colour.deviation()[..., :3]], dim=-1))

    def classify(self, encoded: Encoded, look: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, K, h, w) of the classes and (N, 3, h, w) of `GROUPS` at 1/2 size.

        `look` is (N, C): `embed_context` of the slide each tile belongs to.
        """
        hidden = encoded.quarter + _resized(self.up_quarter(encoded.eighth), encoded.quarter)
        hidden = self.mix_quarter(_film(hidden, self.film_quarter(look)))
        hidden = encoded.half + _resized(self.up_half(hidden), encoded.half)
        hidden = self.mix_half(_film(hidden, self.film_half(look)))
        logits = self.assign(torch.cat([hidden, encoded.relative], dim=1))
        classes, groups = logits.split([self.params.classes, len(GROUPS)], dim=1)
        return classes + self.assign_colour(encoded.relative), groups

    @torch.no_grad()
    def start_classes(self, centres: Tensor, variance: float) -> None:
        """Let the classes begin as clusters of relative colours, before anything is learned.

        `centres` (K, RELATIVE_COLOURS) of `ColourMoments.standardized`; `variance` within one.
        The log-density of equal Gaussians is linear in the colour, up to what all share.
        """
        self.assign_colour.weight.copy_(centres[..., None, None] / variance)
        self.assign_colour.bias.copy_(-centres.square().sum(-1) / (2 * variance))

    def statistics(self, rgb: Tensor) -> tuple[ClassStatistics, Seen]:
        """Return the statistics of (B, n, 3, H, W) tiles of B slides, and what they rest on."""
        slides, tiles = rgb.shape[:2]
        flat = rgb.flatten(0, 1)
        moments = tissue_moments(rgb_to_od(flat)).unflatten(0, (slides, tiles)).mean(1)
        encoded = self.encode(flat, ColourMoments(moments.repeat_interleave(tiles, dim=0)))
        images = torch.full((slides,), float(tiles))
        context = encoded.context.unflatten(0, (slides, tiles)).sum(1)
        look = self.embed_context(context, images)
        logits, group_logits = self.classify(encoded, look.repeat_interleave(tiles, dim=0))
        classes, groups = class_sums(flat, logits, group_logits)
        pooled = ClassStatistics(
            images,
            context,
            classes.unflatten(0, (slides, tiles)).sum(1),
            groups.unflatten(0, (slides, tiles)).sum(1),
        )
        return pooled, Seen(logits, group_logits, moments, look)

    def recognize(self, rgb: Tensor, seen: Seen) -> Tensor:
        """Return class logits (B * n, K, h, w) of more tiles, (B, n, 3, H, W), of seen slides."""
        tiles = rgb.shape[1]
        colour = ColourMoments(seen.moments.repeat_interleave(tiles, dim=0))
        look = seen.look.repeat_interleave(tiles, dim=0)
        return self.classify(self.encode(rgb.flatten(0, 1), colour), look)[0]

    # ---- statistics to an operator -------------------------------------------------------------

    def he_logit(self, statistics: ClassStatistics) -> Tensor:
        """Return (...): log-odds that the tiles show H&E-stained tissue."""
        look = self.embed_context(statistics.context, statistics.images)
        shares = [statistics.fractions.sqrt(), statistics.group_fractions.sqrt()]
        colours = (statistics.context / statistics.images[..., None])[..., -TISSUE_MOMENTS:]
        return self.is_he(torch.cat([look, *shares, colours], dim=-1)).squeeze(-1)

    def match(self, source: ClassStatistics, target: ClassStatistics) -> Match:
        """Return the operators that carry B sources to B targets."""
        looks = [self.embed_context(side.context, side.images) for side in (source, target)]
        return self.matcher(source, target, *looks)

    # ---- for users -----------------------------------------------------------------------------

    @torch.no_grad()
    def summarise(
        self, images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], workers: int = 1
    ) -> ClassStatistics:
        """Return the statistics of the tiles of one slide, float64, poolable with ``+``.

        `images` is (N, H, W, 3) uint8 RGB or a sequence of (H, W, 3), of any size: large ones are
        cut into pieces of at most twice `max_side_px`, and these averaged by a whole factor until
        they fit. Raises `ValueError` for anything else. `workers` threads look at different tiles
        at once; what they find is added in one order, so that their number does not matter.
        """
        chunks = cut_chunks(images, self.params.max_side_px)
        count = torch.tensor(float(sum(map(len, chunks))), dtype=torch.float64)
        moments = sum(tissue_moments(rgb_to_od(chunk)).double().sum(0) for chunk in chunks)
        colour = ColourMoments((moments / count).float()[None])
        kept: list[Encoded] = []
        context = 0.0
        for encoded in each_chunk(chunks, lambda _, chunk: self.encode(chunk, colour), workers):
            context = context + encoded.context.double().sum(0)
            if len(kept) < KEPT_CHUNKS:
                kept.append(encoded)
        look = self.embed_context(context.float(), count.float())

        def recognized(number: int, chunk: Tensor) -> tuple[Tensor, Tensor]:
            encoded = kept[number] if number < len(kept) else self.encode(chunk, colour)
            logits, group_logits = self.classify(encoded, look.expand(len(chunk), -1))
            return class_sums(chunk, logits, group_logits)

        classes = groups = 0.0
        for sums in each_chunk(chunks, recognized, workers):
            classes, groups = (
                total + part.double().sum(0)
                for total, part in zip((classes, groups), sums, strict=True)
            )
        return ClassStatistics(count, context, classes, groups)

    @torch.no_grad()
    def solve(
        self,
        source: ClassStatistics,
        target: ClassStatistics,
        trial: Callable[[dict[str, Any]], bool] | None = None,
    ) -> Solution:
        """Return the operator (10, 3), the confidence that it is safe, and what it rests on.

        Where the confidence is low the operator shrinks to the identity; see `operator_safety`,
        also for `trial`, by which it is tried before it is believed.
        """
        sides = [_batched(side.to(torch.float32)) for side in (source, target)]
        logits = [float(self.he_logit(side)[0]) for side in sides]
        return safe_solution(self.match(*sides), *map(_batched, (source, target)), *logits, trial)

    def save_pretrained(self, folder: str | Path, stamp: Mapping[str, str] | None = None) -> None:
        """Write ``config.json`` and ``model.safetensors``; `stamp` says what made them."""
        from safetensors.torch import save_file

        folder = Path(folder)
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        with atomic_path(folder / WEIGHTS_NAME) as partial:
            # One entry: safetensors writes several in an order that changes from run to run.
            text = json.dumps(dict(stamp or {}), sort_keys=True)
            save_file(tensors, partial, metadata={"stamp": text})
        write_json(folder / CONFIG_NAME, {"class": "OperatorHead", **self.params.to_dict()})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read a folder written by `save_pretrained`.

        Raises
        ------
        InputError
            A file is missing or damaged, of another architecture, or its weights are not finite.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder, remedy = Path(folder), "give the folder of an operator head"
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (folder / name).is_file():
                raise InputError(folder, f"it has no {name}", remedy)
        try:
            config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
            if config.pop("class", None) != "OperatorHead":
                raise InputError(folder / CONFIG_NAME, "it is of another model", remedy)
            head = cls(OperatorHeadParams.from_dict(config))
            weights = load_file(folder / WEIGHTS_NAME)
            head.load_state_dict(weights)
        except (ValueError, TypeError, RuntimeError, SafetensorError) as error:
            found = f"it does not hold an operator head ({str(error).splitlines()[0]})"
            raise InputError(folder, found, remedy) from None
        if not all(bool(torch.isfinite(value).all()) for value in weights.values()):
            raise InputError(folder / WEIGHTS_NAME, "some weights are not finite", remedy)
        return head.eval().requires_grad_(False)


def _batched(statistics: ClassStatistics) -> ClassStatistics:
    return statistics.each(lambda part: part[None])


def _block(inputs: int, outputs: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, dilation, dilation),
        nn.GroupNorm(8, outputs),
        nn.SiLU(),
    )


def _film(hidden: Tensor, film: Tensor) -> Tensor:
    scale, shift = film[..., None, None].chunk(2, dim=1)
    return hidden * (1 + scale) + shift


def _resized(hidden: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(hidden, size=like.shape[2:], mode="bilinear", align_corners=False)
