"""Train the compact diffusion model on pairs of tissue: autoencoder, latents, pixels.

Everything a step needs is made once and stored: tiles with their starts and truths, and of each
target the tokens and what the statistics say. A step then costs little more than the networks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stainfuser.diffusion.checkpoints import fingerprint_weights
from stainfuser.diffusion.compact_pairs import RecolouredPair, draw_pairs
from stainfuser.diffusion.compact_phantoms import draw_phantom_pair
from stainfuser.diffusion.compact_style import StylePairs
from stainfuser.diffusion.context import StainTarget, flatten_tokens, reduce_tokens
from stainfuser.diffusion.denoiser_training import VALIDATION_BATCHES, TrainingData, train_denoiser
from stainfuser.diffusion.encoding import encode_latents, to_range
from stainfuser.diffusion.examples import ExampleBatch, StoredExamples
from stainfuser.diffusion.operator_start import START, start_statistics
from stainfuser.diffusion.optimization import OptimizationParameters, Row, optimize
from stainfuser.diffusion.pairs import as_tensor
from stainfuser.diffusion.pipeline import StainFuserPipeline
from stainfuser.diffusion.sampling import class_labels
from stainfuser.diffusion.training_images import TrainingImage
from stainfuser.io.example_store import ExampleStore
from stainfuser.logs import LOGGER
from stainfuser.nn.stain_statistics import stain_statistics
from stainfuser.seeds import generator
from stainfuser.stain.phantom_tissue import Section

Pairs = list[RecolouredPair]

# Fraction of the examples that are phantoms.
PHANTOM_SHARE = 0.4
# Statistics that hardly differ between examples are not blown up.
LEAST_DEVIATION = 0.02
# Examples drawn at a time.
CHUNK = 8
# Examples whose tiles give the principal components, and from which the decoder learns.
COMPONENT_EXAMPLES, DECODER_EXAMPLES = 60, 200
# Tiles of each kind that are held out to choose the best checkpoint by.
HELD_OUT_TILES = 96


@dataclass(frozen=True)
class Tissue:
    """Real `images`, which are recoloured, and phantom `sections`, which are stained twice.

    `style` makes a share of the examples by style transfer from one image to another.
    """

    images: Sequence[TrainingImage]
    sections: list[Section]
    style: StylePairs | None = None

    def draw(self, head: Any, count: int, tile_px: int, seed: int, *purpose: object) -> Pairs:
        """Draw `count` examples; they depend on `seed` and `purpose` alone."""
        rng = generator(seed, "compact_tissue", *purpose)
        stylised = int(rng.binomial(count, self.style.share)) if self.style else 0
        exact = count - stylised
        phantoms = int(rng.binomial(exact, PHANTOM_SHARE)) if self.sections else 0
        phantoms = exact if not self.images else phantoms
        pairs = draw_pairs(self.images, head, exact - phantoms, tile_px, seed, *purpose)
        while len(pairs) < exact:
            pair = draw_phantom_pair(self.sections, head, tile_px, rng)
            pairs += [] if pair is None else [pair]
        while len(pairs) < count:
            pair = self.style.draw(head, tile_px, rng)
            pairs += [] if pair is None else [pair]
        return pairs


@dataclass(frozen=True)
class CompactData:
    """Tissue to learn from, and other tissue to choose the best checkpoint by."""

    train: Tissue
    held_out: Tissue


@dataclass(frozen=True)
class CompactOptions:
    """`examples` tiles of `tile_px` px, learned from in batches of crops; see the configuration."""

    examples: int
    tile_px: int
    batch_size: int
    crop_px: int
    label_noise: float
    autoencoder: OptimizationParameters
    diffusion: OptimizationParameters
    finetune: OptimizationParameters


def train_compact(
    pipeline: StainFuserPipeline,
    data: CompactData,
    options: CompactOptions,
    accelerator: Any,
    work_dir: Path,
    examples_dir: Path,
    seed: int,
    key: str,
) -> list[Row]:
    """Train `pipeline`, assembled with a frozen operator head, in place; return all losses.

    A killed run goes on from the checkpoints in `work_dir` and the examples in `examples_dir`;
    `key` is a fingerprint of images and head, which examples depend on besides `options`.
    """
    rows = train_autoencoder(pipeline, data, options, accelerator, work_dir, seed)
    with contextlib.ExitStack() as stack:
        path = examples_dir / "train.h5"
        store = store_examples(pipeline, data.train, options, path, options.examples, seed, key)
        stack.enter_context(store)
        standardize_labels(pipeline, torch.from_numpy(store.read_all("labels")))
        train = StoredExamples(
            store,
            seed=seed,
            batch_size=options.batch_size,
            crop_px=options.crop_px,
            label_noise=options.label_noise,
        )
        held_out = {}
        # Nothing that is new to the model may get worse by training.
        parts = {
            "held_out_both": Tissue(data.held_out.images, []),
            "phantoms": Tissue([], data.held_out.sections),
        }
        for name, tissue in parts.items():
            if not tissue.images and not tissue.sections:
                continue
            path = examples_dir / f"{name}.h5"
            kept = store_examples(pipeline, tissue, options, path, HELD_OUT_TILES, seed, key)
            stack.enter_context(kept)
            held_out[name] = StoredExamples(
                kept,
                seed=seed,
                batch_size=HELD_OUT_TILES // VALIDATION_BATCHES,
                crop_px=options.crop_px,
                augment=False,
            )
        phases = (options.diffusion, options.finetune)
        rows += train_denoiser(
            pipeline, TrainingData(train, held_out, max), phases, accelerator, work_dir, seed
        )
    return rows


@torch.no_grad()
def standardize_labels(pipeline: StainFuserPipeline, labels: Tensor) -> None:
    """Let the untrained networks see (N, L) statistics with mean 0 and standard deviation 1.

    That is put into the weights of the layer they enter by, so that nothing else has to know it.
    """
    mean, deviation = labels.mean(dim=0), labels.std(dim=0).clamp(min=LEAST_DEVIATION)
    for network in (pipeline.unet, pipeline.controlnet):
        layer = network.class_embedding.linear_1
        layer.weight /= deviation.to(layer.weight)
        layer.bias -= layer.weight @ mean.to(layer.weight)


def train_autoencoder(
    pipeline: StainFuserPipeline,
    data: CompactData,
    options: CompactOptions,
    accelerator: Any,
    work_dir: Path,
    seed: int,
) -> list[Row]:
    """Set the linear part to the principal components of patches; the decoder learns the rest."""
    vae, head = pipeline.vae, pipeline.operator_head

    def tiles(count: int, purpose: str) -> Tensor:
        pairs = data.train.draw(head, count, options.tile_px, seed, purpose)
        return as_tensor([tile for pair in pairs for tile in (*pair.source, *pair.truth)])

    kept = vae.set_principal_components(tiles(COMPONENT_EXAMPLES, "components") * 2.0 - 1.0)
    vae.analysis.requires_grad_(False)
    LOGGER.info("autoencoder: latents keep %.2f %% of the patches' variance", 100.0 * kept)
    if options.autoencoder.steps == 0:
        return []
    pool = tiles(DECODER_EXAMPLES, "decoder")

    def loss_of(module: nn.Module, step: int, micro: int) -> Tensor:
        rng = generator(seed, "decoder", step, micro)
        top, left = rng.integers(0, options.tile_px - options.crop_px + 1, 2)
        batch = pool[rng.integers(0, len(pool), options.batch_size)]
        batch = batch[..., top : top + options.crop_px, left : left + options.crop_px] * 2.0 - 1.0
        batch = batch.to(accelerator.device)
        error = module(batch) - batch
        # Squares, because a few large errors are what is seen.
        return (error.square() + 1e-4).sqrt().mean() + 10.0 * error.square().mean()

    return optimize(vae, loss_of, options.autoencoder, accelerator, work_dir / "autoencoder")


def store_examples(
    pipeline: StainFuserPipeline,
    tissue: Tissue,
    options: CompactOptions,
    path: Path,
    tiles: int,
    seed: int,
    key: str,
) -> ExampleStore:
    """Draw and encode examples until there are `tiles` tiles, or read those of the same `key`."""

    def make(first: int) -> dict[str, NDArray]:
        purpose = (path.stem, first)
        head, tile_px = pipeline.operator_head, options.tile_px
        pairs = tissue.draw(head, CHUNK, tile_px, seed, *purpose)
        batches = [encode_pair(pipeline, pair).to_arrays() for pair in pairs]
        return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}

    contents = {
        "key": key,
        "seed": seed,
        "tile_px": options.tile_px,
        "context_tokens": pipeline.config.context_tokens,
        "encoder": fingerprint_weights(pipeline.vae.analysis),
    }
    return ExampleStore.filled(path, contents, tiles, make)


@torch.no_grad()
def encode_pair(pipeline: StainFuserPipeline, pair: RecolouredPair) -> ExampleBatch:
    """Encode one example; its tiles share the target, and statistics as tiles of a slide do."""
    device = pipeline.vae.device
    shown = as_tensor(list(pair.target)).to(device)
    latents = encode_latents(pipeline.vae, to_range(shown, pipeline.config.target_range))
    tokens = flatten_tokens(latents.float()).flatten(0, 1)[None]
    tokens, bias = reduce_tokens(tokens, pipeline.config.context_tokens)
    target = StainTarget(tokens, bias, stain_statistics(shown).pooled())
    source = as_tensor(list(pair.source)).to(device)
    own = start_statistics(stain_statistics(source).pooled(), [pair.operator])
    labels = class_labels(pipeline.unet, own, target, START)
    count = len(pair.source)
    return ExampleBatch(
        source,
        as_tensor(list(pair.start)),
        as_tensor(list(pair.truth)),
        tokens.expand(count, -1, -1),
        None if bias is None else bias.expand(count, -1, -1),
        None if labels is None else labels.expand(count, -1),
    )
