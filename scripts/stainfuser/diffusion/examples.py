"""Training examples as the networks take them, encoded at every step or once and for all."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stainfuser.diffusion.context import StainTarget, flatten_tokens, reduce_tokens
from stainfuser.diffusion.encoding import encode_latents, to_range
from stainfuser.diffusion.operator_start import START, start_statistics, start_tensor
from stainfuser.diffusion.pair_sampler import PairBatch, PairSampler
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.sampling import class_labels
from stainfuser.io.example_store import ExampleStore
from stainfuser.nn.stain_statistics import StainStatistics, match_statistics, stain_statistics
from stainfuser.seeds import generator

PIXELS = ("source", "start", "stylized")


@dataclass(frozen=True)
class ExampleBatch:
    """N examples.

    Attributes
    ----------
    source, start, stylized
        (N, 3, c, c) RGB in [0, 1] of one place: what steers, where a bridge starts, the truth.
    tokens, token_bias
        Of the targets, see `StainTarget`.
    labels
        (N, L) what the statistics say, or None.
    clean, first
        (N, C, h, w) latents of `stylized` and `start`; None: encode them.
    """

    source: Tensor
    start: Tensor
    stylized: Tensor
    tokens: Tensor
    token_bias: Tensor | None = None
    labels: Tensor | None = None
    clean: Tensor | None = None
    first: Tensor | None = None

    @property
    def target(self) -> StainTarget:
        """The targets; their statistics have become `labels`."""
        none = torch.zeros(len(self.tokens), 0, 3)
        statistics = StainStatistics(none, none, none)
        return StainTarget(self.tokens, self.token_bias, statistics)

    def to(self, device: Any) -> ExampleBatch:
        """Return the batch on a device."""
        parts = vars(self).items()
        return ExampleBatch(**{k: v if v is None else v.to(device) for k, v in parts})

    def to_arrays(self) -> dict[str, NDArray]:
        """Return the arrays to store: pixels in 8 bits, as images are given at inference."""
        arrays = {name: value.cpu() for name, value in vars(self).items() if value is not None}
        for name in PIXELS:
            arrays[name] = (arrays[name].clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        return {name: value.numpy() for name, value in arrays.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray]) -> ExampleBatch:
        """Invert `to_arrays`."""
        tensors = {field.name: arrays.get(field.name) for field in fields(cls)}
        tensors = {k: v if v is None else torch.from_numpy(v) for k, v in tensors.items()}
        for name in PIXELS:
            tensors[name] = tensors[name].float() / 255.0
        return cls(**tensors)


class Examples(Protocol):
    """Where batches come from; a batch depends on step and stream alone."""

    def draw(self, step: int, stream: int = 0) -> ExampleBatch:
        """Return the batch of one step."""


class FreshExamples:
    """Encodes the pairs of a sampler anew at every step; with `with_latents` the images, too."""

    def __init__(
        self, pipeline: StainFuserPipeline, sampler: PairSampler, with_latents: bool = False
    ) -> None:
        self._pipeline, self._sampler, self._with_latents = pipeline, sampler, with_latents

    def draw(self, step: int, stream: int = 0) -> ExampleBatch:
        """Return the batch of one step."""
        batch = self._sampler.draw(step, stream).to(self._pipeline.unet.device)
        with torch.no_grad():
            return encode_pairs(self._pipeline, batch, self._with_latents)


class StoredExamples:
    """Reads examples that were encoded once; their pixels are cut, turned and mirrored anew.

    Latents belong to their pixels as they are: where they are stored, nothing is turned.

    Parameters
    ----------
    store
        Rows of `ExampleBatch.to_arrays`.
    seed, batch_size
        Of the draws.
    crop_px
        Side that is cut; at most that of the stored images.
    rows
        Rows to draw from; None: all.
    augment
        False: the same crop in the middle every time, and the rows in order (validation).
    label_noise
        Noise added to the statistics, in their standard deviations, so that the few tissues of a
        training set are not learned by heart.
    """

    def __init__(
        self,
        store: ExampleStore,
        *,
        seed: int,
        batch_size: int,
        crop_px: int,
        rows: NDArray[np.int64] | None = None,
        augment: bool = True,
        label_noise: float = 0.0,
    ) -> None:
        self._store, self._seed, self._batch_size = store, seed, batch_size
        self._crop_px, self._augment = crop_px, augment
        self._rows = np.arange(len(store)) if rows is None else rows
        self._label_noise = label_noise * store.read_all("labels").std(0) if label_noise else None

    def draw(self, step: int, stream: int = 0) -> ExampleBatch:
        """Return the batch of one step."""
        rng = generator(self._seed, "stored examples", step, stream)
        if self._augment:
            rows = self._rows[rng.integers(0, len(self._rows), self._batch_size)]
        else:
            first = stream * self._batch_size + np.arange(self._batch_size)
            rows = self._rows[first % len(self._rows)]
        arrays = self._store.read(rows)
        if "clean" not in arrays:
            arrays.update(self._turned({name: arrays[name] for name in PIXELS}, rng))
        if self._label_noise is not None:
            noise = rng.standard_normal(arrays["labels"].shape, dtype=np.float32)
            arrays["labels"] = arrays["labels"] + self._label_noise * noise
        return ExampleBatch.from_arrays(arrays)

    def _turned(self, images: dict[str, NDArray], rng: np.random.Generator) -> dict[str, NDArray]:
        """Cut, turn and mirror (N, 3, S, S) images, each example alike."""
        room = images["source"].shape[-1] - self._crop_px
        count = len(images["source"])
        tops, lefts, turns, flips = (
            rng.integers(0, high, count) for high in (room + 1, room + 1, 4, 2)
        )
        if not self._augment:
            tops, lefts, turns, flips = (np.full(count, v) for v in (room // 2, room // 2, 0, 0))
        cut = {}
        for name, stack in images.items():
            crops = []
            for image, top, left, turn, flip in zip(stack, tops, lefts, turns, flips, strict=True):
                crop = image[:, top : top + self._crop_px, left : left + self._crop_px]
                crop = np.rot90(crop, turn, (1, 2))
                crops.append(crop[..., ::-1] if flip else crop)
            cut[name] = np.stack(crops)
        return cut


def encode_pairs(
    pipeline: StainFuserPipeline, batch: PairBatch, with_latents: bool = False
) -> ExampleBatch:
    """Encode a batch of pairs; with `with_latents` the images, too."""
    config = pipeline.config
    target = encode_stain(pipeline, batch.target_stain)
    own = stain_statistics(batch.source_stain)
    start = batch.source
    if config.start == "statistics":
        start = match_statistics(batch.source, own, target.statistics)
    elif config.start == START:
        start, own = start_tensor(batch.operators, start), start_statistics(own, batch.operators)
    labels = class_labels(pipeline.unet, own, target, config.start)
    latents: list[Tensor | None] = [None, None]
    if with_latents:
        images = (batch.stylized, start)
        latents = [encode_latents(pipeline.vae, to_range(x, "minus_one_one")) for x in images]
    return ExampleBatch(
        batch.source, start, batch.stylized, target.tokens, target.token_bias, labels, *latents
    )


def encode_stain(pipeline: StainFuserPipeline, mosaic: Tensor) -> StainTarget:
    """Encode (N, 3, H, W) mosaics in [0, 1] as targets, as a batch."""
    config = pipeline.config
    latents = encode_latents(pipeline.vae, to_range(mosaic, config.target_range)).float()
    tokens, bias = reduce_tokens(flatten_tokens(latents), config.context_tokens)
    return StainTarget(tokens, bias, stain_statistics(mosaic))
